"""Inspection: what a model contains, and what this machine can do."""
