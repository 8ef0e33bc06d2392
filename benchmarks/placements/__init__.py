"""The parts of benchmarks/placement.py: networks, their quantized forms, their engines, and who runs what when."""
