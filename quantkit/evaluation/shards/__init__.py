"""Shards of an evaluation: the totals of some batches as a file, and the evaluation that all of them add up to."""
