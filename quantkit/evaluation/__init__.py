"""Evaluation: what INT8 costs and gains, by metrics and paired statistics on the same samples."""
