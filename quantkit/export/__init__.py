"""What serves a network elsewhere: a model repository for Triton Inference Server."""
