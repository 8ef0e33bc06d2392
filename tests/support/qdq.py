"""What the tests of Q/DQ placement share: networks from text, their pairs, and what onnxruntime computes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper, parser

from quantkit.graph import Model, watched_tensors
from quantkit.qdq.insert import insert_qdq
from quantkit.qdq.insertion import QuantizedNetwork, WeightForm
from quantkit.qdq.placement import Choices


class Pair:
    """One QuantizeLinear and what follows it."""

    def __init__(self, proto: onnx.ModelProto, quantize: onnx.NodeProto) -> None:
        values = {tensor.name: tensor for tensor in proto.graph.initializer}
        (self.dequantize,) = (node for node in proto.graph.node if quantize.output[0] in node.input)
        assert self.dequantize.op_type == "DequantizeLinear"
        assert list(self.dequantize.input[1:]) == list(quantize.input[1:])
        self.tensor, self.result = quantize.input[0], self.dequantize.output[0]
        self.scale = numpy_helper.to_array(values[quantize.input[1]])
        zero = numpy_helper.to_array(values[quantize.input[2]])
        assert (self.scale.dtype, zero.dtype, zero.shape) == (np.float32, np.int8, self.scale.shape)
        assert not zero.any()
        axes = [[a.i for a in node.attribute if a.name == "axis"] for node in (quantize, self.dequantize)]
        assert axes[0] == axes[1]
        self.axis = axes[0][0] if axes[0] else None
        self.readers = [node.op_type for node in proto.graph.node if self.result in node.input]


def network(text: str, opset: int = 17, ir: int = 8, **weights: NDArray[Any]) -> onnx.ModelProto:
    """A model from ONNX's own text syntax, with weights as initializers."""
    proto = parser.parse_model(f'<ir_version: {ir}, opset_import: ["": {opset}]> net {text}')
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return proto


def model_of(text: str, opset: int = 17, **weights: NDArray[Any]) -> Model:
    """The same, as quantkit knows it."""
    return Model(Path("net.onnx"), network(text, opset, **weights), "")


def write_gated_block(folder: Path, header: str) -> tuple[Path, Path, Path]:
    """Write a network of a depthwise convolution with a gate (h, k) between two others (a, y), a table, two samples."""
    head = "(float[N, 8, 6, 6] x) => (float[N, 8, 6, 6] y)"
    text = (
        "a = Conv(x, w) b = Conv<group = 8, pads = [1, 1, 1, 1]>(a, d) p = GlobalAveragePool(b) h = Conv(p, v)"
        " i = Relu(h) k = Conv(i, u) g = Sigmoid(k) m = Mul(b, g) y = Conv(m, w)"
    )
    weights = {"w": noise(8, 8, 1, 1), "d": noise(8, 1, 3, 3), "v": noise(4, 8, 1, 1), "u": noise(8, 4, 1, 1)}
    model = model_of(f"{head} {{ {text} }}", **weights)
    network, table, samples = folder / "gate.onnx", folder / "gate.calib", folder / "gate.npy"
    onnx.save(model.proto, network)
    lines = [f"{name}: {np.float32(scale).view(np.uint32):x}" for name, scale in every_scale(model).items()]
    table.write_text("\n".join([header, *lines, ""]))
    np.save(samples, noise(2, 8, 6, 6))
    return network, table, samples


def noise(*shape: int) -> NDArray[Any]:
    """Weights of a shape, the same ones every time."""
    return np.random.default_rng(shape).normal(size=shape).astype(np.float32)


def every_scale(model: Model) -> dict[str, float]:
    """A table: another scale for every tensor, all of them of one order."""
    return {name: 0.1 + 0.001 * k for k, name in enumerate(watched_tensors(model).tensors)}


def inserted(
    model: Model,
    scales: Mapping[str, float] | None = None,
    choices: Choices | None = None,
    form: WeightForm = WeightForm.FLOAT,
) -> QuantizedNetwork:
    """Insert pairs, and look whether the result is a model at all."""
    made = insert_qdq(model, every_scale(model) if scales is None else scales, choices, form)
    onnx.checker.check_model(made.proto, full_check=True)
    return made


def reasons(made: QuantizedNetwork) -> dict[str, str]:
    """Why operators stay float, in words."""
    return {node: str(reason) for node, reason in made.left.items()}


def pairs(proto: onnx.ModelProto) -> list[Pair]:
    return [Pair(proto, node) for node in proto.graph.node if node.op_type == "QuantizeLinear"]


def behind_pairs(made: QuantizedNetwork, output: str) -> list[bool]:
    """For every input of a node: whether it is read behind a pair."""
    results = {p.result for p in pairs(made.proto)}
    return [name in results for name in node_of(made.proto, output).input]


def pair(proto: onnx.ModelProto, tensor: str) -> Pair:
    (found,) = (p for p in pairs(proto) if p.tensor == tensor)
    return found


def placed(made: QuantizedNetwork) -> list[str]:
    """Activations with a pair."""
    found = [p.tensor for p in pairs(made.proto) if p.axis is None]
    assert found == list(made.pairs)
    return found


def node_of(proto: onnx.ModelProto, output: str) -> onnx.NodeProto:
    (found,) = (node for node in proto.graph.node if output in node.output)
    return found


def on_onnxruntime(model: onnx.ModelProto | Path, **feeds: NDArray[Any]) -> list[NDArray[Any]]:
    """What onnxruntime computes, node by node."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, ["CPUExecutionProvider"])
    return list(session.run(None, feeds))
