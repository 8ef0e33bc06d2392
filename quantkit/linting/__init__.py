"""Linting: what TensorRT rejects or runs slowly in a Q/DQ model, and safe fixes."""
