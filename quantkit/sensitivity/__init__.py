"""Sensitivity: which layers and tensors lose accuracy in INT8."""
