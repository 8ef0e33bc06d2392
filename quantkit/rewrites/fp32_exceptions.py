"""Nodes that stay float32 when a network becomes FP16, with reasons.

float16 ends at 65504, has 11 significant bits, and fewer below 2⁻¹⁴. So these stay float32:

    operators            those without a float16 form, with subgraphs, of other domains, of unknown types
    coordinates          RoiAlign, GridSample, and floats made from integers: above 2048 float16 skips some
    growing values       powers, exponentials, sums, squares, and what is computed from them, until a division, a
                         logarithm or a bounded function: LayerNormalization in pieces, GELU by tanh, decoded boxes
    small constants      an epsilon that float16 rounds to 0, and what is computed from it, as above
    measured tensors     those whose recorded values come near 65504, with the nodes that make and read them
    Q/DQ                 pairs whose scales float16 lacks: all subnormal there, or one too large

Softmax, LayerNormalization, InstanceNormalization and pools become FP16: they accumulate in float32 themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from quantkit.graph.model import DTYPES, Model
from quantkit.graph.operators import (
    COORDINATE_OPERATORS,
    GROWING,
    ONNX_DOMAINS,
    QDQ,
    RANGE_CARRYING,
    RANGE_ENDING,
    TYPED_LIKE_INPUT,
)
from quantkit.graph.subgraphs import count_inner_operators
from quantkit.graph.weights import weight_values
from quantkit.rewrites.fp16_scales import LEAST_NORMAL

if TYPE_CHECKING:
    import onnx

    from quantkit.graph.index import GraphIndex
    from quantkit.values import Array

HALF_MAX = 65504.0
NEAR = HALF_MAX / 2
"""A tensor whose recorded values exceed this stays float32: other data may reach further than the recorded ones."""
VANISHING = 2.0**-25
"""Numbers up to this are 0 in float16."""
COARSE = 2.0**-6
"""Largest relative change of a constant by float16 that is accepted."""
INTEGERS = frozenset({"int16", "int32", "int64", "uint16", "uint32", "uint64"})
GROWN, INDEX, MEASURED = "grown", "index", "measured"


def fp32_reasons(model: Model, wires: GraphIndex, opset: int, ranges: Mapping[str, float]) -> dict[int, str]:
    """Return number → reason for the nodes that stay float32; those without float32 tensors are not included.

    ranges: tensor → the largest absolute value that was recorded.
    """
    keeping = Fp32Exceptions(model, wires, opset, ranges)
    reasons: dict[int, str] = {}
    for number, node in enumerate(wires.nodes):
        reason = keeping.reason(node)
        if reason and any(
            wires.types.get(name, "float32") == "float32" for name in (*node.input, *node.output) if name
        ):
            reasons[number] = reason
    return reasons


def type_slots(node: onnx.NodeProto, opset: int) -> Iterator[tuple[str, str, bool]]:
    """Yield every tensor of a node, inputs first: its name, its type variable, and whether that may be float16.

    Yields nothing if ONNX does not know the operator.
    """
    from onnx import defs

    try:
        schema = defs.get_schema(node.op_type, opset, "" if node.domain in ONNX_DOMAINS else node.domain)
    except defs.SchemaError:
        return
    half = {c.type_param_str for c in schema.type_constraints if "tensor(float16)" in c.allowed_type_strs}
    for names, formal in ((node.input, schema.inputs), (node.output, schema.outputs)):
        for place, name in enumerate(names):
            variable = formal[min(place, len(formal) - 1)].type_str
            yield name, variable, variable in half


class Fp32Exceptions:
    """A walk over a graph in order that remembers which tensors hold what float16 cannot."""

    def __init__(self, model: Model, wires: GraphIndex, opset: int, ranges: Mapping[str, float]) -> None:
        self._model, self._wires, self._opset = model, wires, opset
        self._wide = {name: MEASURED for name, largest in ranges.items() if largest > NEAR}

    def reason(self, node: onnx.NodeProto) -> str:
        """Return why a node stays float32; empty if it does not."""
        if node.op_type == "Constant":
            return ""
        return self._form(node) or self._scale(node) or self._measured(node) or self._grown(node)

    def _form(self, node: onnx.NodeProto) -> str:
        if count_inner_operators(node):
            return "it has subgraphs"
        if node.domain not in ONNX_DOMAINS or not any(type_slots(node, self._opset)):
            return "it is not an operator of ONNX"
        if node.op_type in COORDINATE_OPERATORS:
            return "it computes with coordinates"
        if node.op_type in TYPED_LIKE_INPUT:
            return "it generates numbers"
        known = self._wires.types.keys() | self._wires.weights.keys()
        if any(name and name not in known for name in (*node.input, *node.output)):
            return "the types of its tensors are unknown"
        if "other" in (self._wires.types.get(name) for name in (*node.input, *node.output)):
            return "some of its inputs or outputs are not tensors"
        floats = [half for name, _, half in type_slots(node, self._opset) if name and self._type(name) == "float32"]
        return "it has no float16 form" if floats and not any(floats) else ""

    def _type(self, name: str) -> str:
        weight = self._wires.weights.get(name)
        return self._wires.types.get(name, "other") if weight is None else DTYPES.get(weight.data_type, "other")

    def _scale(self, node: onnx.NodeProto) -> str:
        if node.op_type not in QDQ:
            return ""
        weight = self._wires.weights.get(node.input[1])
        if weight is None:
            return "its scale is computed by the network"
        if any(a.name == "output_dtype" and a.i for a in node.attribute):
            return "its attribute output_dtype fixes its type"
        if (
            self._type(node.input[1]) != "float32"
            or fp16_scale(weight_values(weight, self._model), self._is_pair(node)).size
        ):
            return ""
        return "its scale is subnormal in float16, or too large"

    def _is_pair(self, node: onnx.NodeProto) -> bool:
        maker = self._wires.maker(node.input[0])
        return node.op_type == "QuantizeLinear" or (maker is not None and maker.op_type == "QuantizeLinear")

    def _measured(self, node: onnx.NodeProto) -> str:
        if node.op_type == "QuantizeLinear":  # saturates in any case
            return ""
        names = [name for name in (*node.output, *node.input) if self._wide.get(name) == MEASURED]
        return f"the values of {names[0]!r} come near {HALF_MAX:.0f}, or exceed it" if names else ""

    def _grown(self, node: onnx.NodeProto) -> str:
        kinds = {self._wide[name] for name in node.input if name in self._wide} - {MEASURED}
        if node.op_type == "Cast" and self._type(node.input[0]) in INTEGERS:
            self._mark(node, INDEX)
            return "it converts integers to floats"
        if kinds == {INDEX}:
            if node.op_type in RANGE_CARRYING | RANGE_ENDING | GROWING and self._counts(node):
                self._mark(node, INDEX)
                return "it computes with integers in floats"
            kinds = set()
        square = node.op_type == "Mul" and node.input[0] == node.input[1]
        reason = ""
        if node.op_type in GROWING or square:
            reason = f"its values may exceed {HALF_MAX:.0f}"
        elif any(self._is_fine(name) for name in node.input):
            reason = "float16 has no such small constant"
        elif kinds and node.op_type in RANGE_CARRYING | RANGE_ENDING:
            reason = "it computes with values that may be too large or too small for float16"
        if reason and node.op_type not in RANGE_ENDING:
            self._mark(node, GROWN)
        return reason

    def _mark(self, node: onnx.NodeProto, kind: str) -> None:
        for name in node.output:
            if self._type(name) == "float32":
                self._wide.setdefault(name, kind)

    def _counts(self, node: onnx.NodeProto) -> bool:
        """Return whether all inputs of a node, constants aside, are integers in floats."""
        floats = [n for n in node.input if n and n not in self._wires.constants and self._type(n) == "float32"]
        return all(self._wide.get(name) == INDEX for name in floats)

    def _is_fine(self, name: str) -> bool:
        """Return whether a tensor is one number that float16 rounds to 0 or to a clearly different one."""
        weight = self._wires.weights.get(name)
        if weight is None or self._type(name) != "float32" or int(np.prod(weight.dims)) != 1:
            return False
        value = float(weight_values(weight, self._model).reshape(()))
        return 0 < abs(value) < LEAST_NORMAL and abs(float(np.float16(value)) - value) > COARSE * abs(value)


def fp16_scale(scale: Array, pair: bool) -> Array:
    """Return a scale in float16; empty if one of its numbers is subnormal there, or too large.

    A channel that is 0 in float16 may have any scale. pair: QuantizeLinear and DequantizeLinear use the same rounded
    scale; stored integers cannot follow it.
    """
    with np.errstate(over="ignore"):
        half: Array = np.asarray(scale).astype(np.float16)
    zero = np.asarray(scale) * 127 <= VANISHING if pair else np.asarray(scale) <= np.finfo(np.float32).tiny
    half = np.where(zero, np.float16(LEAST_NORMAL), half)
    fits = bool(((half >= LEAST_NORMAL) & np.isfinite(half)).all())
    return half if fits else np.empty(0, np.float16)
