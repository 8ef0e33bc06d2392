"""Engines: build them with TensorRT, time them, and choose the precision to deploy."""
