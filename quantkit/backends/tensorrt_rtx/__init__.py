"""TensorRT-RTX as a compiler: it parses and compiles an ONNX file for GPUs that this machine does not have.

It opens no sessions, since an engine runs on a GPU alone; so this folder has no `BACKEND`.
"""
