"""Quantization: a Q/DQ model from statistics or a table, repairs of its network, and conversion back to a table."""
