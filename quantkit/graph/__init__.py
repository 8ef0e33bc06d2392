"""The ONNX graph: reading a model, its identity, and which of its tensors TensorRT wants scales for."""

from quantkit.graph.model import Model, load_model
from quantkit.graph.tensors import ChannelView, Watch, watched_tensors

__all__ = ["ChannelView", "Model", "Watch", "load_model", "watched_tensors"]
