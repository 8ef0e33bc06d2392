"""Rewrites of a float network that keep what it computes: folding, and FP16."""
