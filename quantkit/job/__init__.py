"""A calibration job: what is settled before data is looked at, what is reused, and what lands on disk."""
