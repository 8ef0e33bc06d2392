"""The ONNX graph: reading and identifying a model, what a calibration watches in it, Q/DQ pairs,
and what TensorRT thinks of those that are there."""

from quantkit.graph.findings import Finding
from quantkit.graph.folding import Folded, folded
from quantkit.graph.half import Half, with_half
from quantkit.graph.inserting import Quantized, WeightForm
from quantkit.graph.linting import lint
from quantkit.graph.mending import mend, with_split_clips
from quantkit.graph.model import Model, load_model
from quantkit.graph.placing import Choices, Policy
from quantkit.graph.propagation import propagated_scales
from quantkit.graph.quantizing import Plan, has_qdq, is_half, planned, with_qdq
from quantkit.graph.saving import saved_files, write_model
from quantkit.graph.stripping import LostGrid, Stripped, without_qdq
from quantkit.graph.tensors import ChannelView, Watch, watched_tensors
from quantkit.graph.weight_scales import weight_deviations

__all__ = [
    "ChannelView",
    "Choices",
    "Finding",
    "Folded",
    "Half",
    "LostGrid",
    "Model",
    "Plan",
    "Policy",
    "Quantized",
    "Stripped",
    "Watch",
    "WeightForm",
    "folded",
    "has_qdq",
    "is_half",
    "lint",
    "load_model",
    "mend",
    "planned",
    "propagated_scales",
    "saved_files",
    "watched_tensors",
    "weight_deviations",
    "with_half",
    "with_qdq",
    "with_split_clips",
    "without_qdq",
    "write_model",
]
