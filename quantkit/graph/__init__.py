"""The ONNX graph: a model that is read and identified, its tensors and their wiring, and how a model is written."""

from quantkit.graph.load import AnyModel, load_model, refuse_changed_model, refuse_changed_weights
from quantkit.graph.model import Model
from quantkit.graph.save import saved_files, write_model
from quantkit.graph.tensors import ChannelView, Watch, watched_tensors

__all__ = [
    "AnyModel",
    "ChannelView",
    "Model",
    "Watch",
    "load_model",
    "refuse_changed_model",
    "refuse_changed_weights",
    "saved_files",
    "watched_tensors",
    "write_model",
]
