"""Quantization: a Q/DQ model from statistics or a table, its repairs, and the way back to a table."""
