"""Networks of other frameworks: how each becomes ONNX, and how each is run beside it. PyTorch, TensorFlow, TFLite."""
