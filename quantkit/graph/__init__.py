"""The ONNX graph: reading and identifying a model, what a calibration watches in it, Q/DQ pairs."""

from quantkit.graph.inserting import Quantized, WeightForm, Weights
from quantkit.graph.model import Model, load_model
from quantkit.graph.placing import Choices, Policy
from quantkit.graph.quantizing import has_qdq, is_half, with_qdq
from quantkit.graph.tensors import ChannelView, Watch, watched_tensors

__all__ = [
    "ChannelView",
    "Choices",
    "Model",
    "Policy",
    "Quantized",
    "Watch",
    "WeightForm",
    "Weights",
    "has_qdq",
    "is_half",
    "load_model",
    "watched_tensors",
    "with_qdq",
]
