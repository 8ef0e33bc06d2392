"""Rules about what TensorRT rejects in a Q/DQ network or reads otherwise than the file says, whichever tool wrote it.

They are the checks of TensorRT's ONNX parser (onnx-tensorrt, QuantDequantLinearHelper: symmetric INT8, positive
constant scales, as many as there are channels) and of its developer guide ("Explicit quantization": activations per
tensor, weights per output channel).
"""
