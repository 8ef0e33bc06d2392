"""ONNX graphs of independent branches, of which TensorRT measures many in one engine.

Every node is called `b<branch>.o<step>.<word>`, so that the layers of an engine lead back to the step they belong to.
Weights are a repeated random pattern of usual size, because TensorRT 8.6 builds no Q/DQ around zeros.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from quantkit.numerics import LEVELS

if TYPE_CHECKING:
    import onnx

    from quantkit.values import Array

OPSET, HALF_OPSET, IR_VERSION = 17, 19, 9
"""Opset 19 is the first whose Q/DQ read float16."""
FLOAT = "float"
"""The form of a chain without Q/DQ pairs."""
PATTERN = 65_521
"""Values of the weight pattern; a prime, so that no channel equals its neighbour."""
SCALE = 0.04
"""The scale of activations: ±5.08, of values that are about normal."""


@cache
def weight_pattern() -> Array:
    """Return the random values that all weights repeat: float32 [PATTERN]."""
    return np.random.default_rng(0).normal(0, 1, PATTERN).astype(np.float32)


@dataclass(slots=True)
class BranchWriter:
    """The nodes of one branch in progress. form: where its Q/DQ pairs are; `float` has none."""

    number: int
    form: str
    step: int = 0
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    _made: int = 0
    _paired: dict[str, str] = field(default_factory=dict)

    @property
    def quantized(self) -> bool:
        """True if the branch has Q/DQ pairs."""
        return self.form != FLOAT

    @property
    def prefix(self) -> str:
        """The beginning of the names of this step."""
        return f"b{self.number}.o{self.step}."

    def input(self, *shape: int) -> str:
        """Add an input of the branch."""
        from onnx import TensorProto, helper

        name = f"b{self.number}.in{len(self.inputs)}"
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def output(self, tensor: str, rank: int = 4) -> None:
        """Add an output of the branch."""
        from onnx import TensorProto, helper

        name = f"b{self.number}.out{len(self.outputs)}"
        self.nodes.append(helper.make_node("Identity", [tensor], [name], f"{self.prefix}end{len(self.outputs)}"))
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank))

    def node(self, operator: str, *inputs: str, **attributes: object) -> str:
        """Add a node of this step, and return its output."""
        from onnx import helper

        self._made += 1
        name = f"{self.prefix}{operator.lower()}{self._made}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name, **attributes))
        return name

    def constant(self, values: Array) -> str:
        """Add an initializer, and return its name."""
        from onnx import numpy_helper

        self._made += 1
        name = f"{self.prefix}k{self._made}"
        self.initializers.append(numpy_helper.from_array(np.array(values, order="C"), name))
        return name

    def weights(self, shape: tuple[int, ...], fan_in: int) -> str:
        """Add float weights of usual size."""
        count = int(np.prod(shape))
        shift = (self.step * 977 + self.number * 131) % PATTERN
        values = np.resize(np.roll(weight_pattern(), shift), count).reshape(shape)
        return self.constant(values * np.float32((2 / fan_in) ** 0.5))

    def pair(self, tensor: str, scale: float = SCALE) -> str:
        """Add a Q/DQ pair behind an activation, one for all its readers; nothing in a float branch."""
        if not self.quantized:
            return tensor
        if tensor not in self._paired:
            numbers = self.constant(np.float32(scale)), self.constant(np.int8(0))
            pair = self.node("DequantizeLinear", self.node("QuantizeLinear", tensor, *numbers), *numbers)
            self._paired[tensor] = pair
        return self._paired[tensor]

    def paired_weights(self, shape: tuple[int, ...], fan_in: int, axis: int, *, int8: bool) -> str:
        """Add weights, behind a Q/DQ pair with a scale for each output channel if `int8`."""
        name = self.weights(shape, fan_in)
        if not (int8 and self.quantized):
            return name
        count = shape[axis]
        most = np.float32(4.5 * (2 / fan_in) ** 0.5 / LEVELS)
        scales = self.constant(np.full(count, most, np.float32)), self.constant(np.zeros(count, np.int8))
        quantized = self.node("QuantizeLinear", name, *scales, axis=axis)
        return self.node("DequantizeLinear", quantized, *scales, axis=axis)


def branches_model(branches: list[BranchWriter], *, half: bool = False) -> onnx.ModelProto:
    """Return one network of all branches. half: in FP16, for a TensorRT that takes its types from the network."""
    from onnx import helper

    graph = helper.make_graph(
        [node for b in branches for node in b.nodes], "branches", [i for b in branches for i in b.inputs],
        [o for b in branches for o in b.outputs], [w for b in branches for w in b.initializers],
    )  # fmt: skip
    if half:
        halve(graph)
    opset = HALF_OPSET if half else OPSET
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR_VERSION)


def halve(graph: onnx.GraphProto) -> None:
    """Turn every float tensor of a graph into float16; the scales of a Resize stay as they are."""
    from onnx import TensorProto, numpy_helper

    resized = {node.input[2] for node in graph.node if node.op_type == "Resize"}
    for weight in graph.initializer:
        if weight.data_type == TensorProto.FLOAT and weight.name not in resized:
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), weight.name))
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
