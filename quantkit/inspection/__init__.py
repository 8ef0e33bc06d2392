"""Inspection: what a model holds, and what this machine can do."""
