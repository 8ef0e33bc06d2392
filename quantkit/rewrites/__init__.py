"""Rewrites of a network that keep what it computes: folding, and FP16."""
