"""The parts of `gpu_acceptance.py`: each returns plain figures."""
