"""Metrics: figures that a stream of outputs and labels adds up to."""
