"""Metrics over a stream of outputs and labels. A built-in metric is one file with a `METRIC` (see `registry`)."""
