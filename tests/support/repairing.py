"""What the tests of repairs share: small networks, what they compute, and figures of their activations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper, parser

from quantkit.graph import Model, watched_tensors
from quantkit.repairs import ChannelFigures


def model_of(text: str, opset: int = 17, **weights: NDArray[Any]) -> Model:
    """A model from ONNX's own text syntax, with weights as initializers."""
    proto = parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]> net {text}')
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return Model(Path("net.onnx"), proto, "")


def again(model: Model, proto: onnx.ModelProto) -> Model:
    """The model that a repair made, checked."""
    onnx.checker.check_model(proto, full_check=True)
    return Model(model.path, proto, "")


def outputs_of(proto: onnx.ModelProto, *names: str, **feeds: NDArray[Any]) -> list[NDArray[Any]]:
    """What onnxruntime computes, node by node: the named tensors, or the outputs of the network."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    if names:
        del copy.graph.output[:]
        copy.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(copy.SerializeToString(), options, ["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def figures_of(model: Model, **feeds: NDArray[Any]) -> dict[str, ChannelFigures]:
    """Figures of every input of a weighted operator."""
    views = watched_tensors(model).channels
    inner = [view.tensor for view in views if view.tensor not in feeds]
    values = {**feeds, **dict(zip(inner, outputs_of(model.proto, *inner, **feeds), strict=True))} if inner else feeds
    found = {}
    for view in views:
        x = values[view.tensor].astype(np.float64)
        flat = np.moveaxis(x, view.axis, 0).reshape(x.shape[view.axis], -1)
        found[view.tensor] = ChannelFigures(view.axis, np.abs(flat).max(1), flat.mean(1), (flat**2).mean(1))
    return found


def weight_of(proto: onnx.ModelProto, name: str) -> NDArray[Any]:
    """The values of an initializer."""
    (tensor,) = (tensor for tensor in proto.graph.initializer if tensor.name == name)
    return numpy_helper.to_array(tensor)
