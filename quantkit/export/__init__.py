"""Export for an inference server: a model repository for Triton Inference Server."""
