"""Shards of a sensitivity analysis: the totals of some batches as a file, by hand or by workers."""
