"""What runs a network and shows its tensors. `session` is the seam; `onnxruntime` needs no GPU."""
