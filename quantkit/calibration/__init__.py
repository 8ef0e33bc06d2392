"""Calibration: one streaming pass over the data, the statistics and tables that follow from it, and their reuse."""
