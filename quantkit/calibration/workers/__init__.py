"""Calibration by several workers."""
