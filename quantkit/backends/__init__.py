"""Libraries that run networks. `session` is the seam; each folder is a backend; `onnxruntime` needs no GPU."""
