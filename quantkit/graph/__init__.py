"""The ONNX graph: reading and identifying a model, what a calibration watches in it, Q/DQ pairs,
and what TensorRT thinks of those that are there."""

from quantkit.graph.findings import Finding
from quantkit.graph.linting import lint
from quantkit.graph.mending import mend
from quantkit.graph.model import Model, load_model
from quantkit.graph.quantizing import Quantized, has_qdq, is_half, with_qdq
from quantkit.graph.tensors import ChannelView, Watch, watched_tensors

__all__ = [
    "ChannelView",
    "Finding",
    "Model",
    "Quantized",
    "Watch",
    "has_qdq",
    "is_half",
    "lint",
    "load_model",
    "mend",
    "watched_tensors",
    "with_qdq",
]
