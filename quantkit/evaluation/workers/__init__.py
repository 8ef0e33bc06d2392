"""Evaluation by several workers."""
