"""Measurements of what a GPU runs faster in INT8: chains of operators, and the profile that `quantize` reads."""
