"""Insertion of Q/DQ pairs into a float network, in the places that TensorRT needs them in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from quantkit.graph.index import GraphIndex, index_graph
from quantkit.graph.model import DTYPES, Model, default_opset
from quantkit.graph.operators import WEIGHTED
from quantkit.graph.opset import raise_opset
from quantkit.qdq.insertion import QuantizedNetwork, WeightForm, insert_pairs, refuse_nothing_quantized
from quantkit.qdq.placement import Choices, Placement, place_pairs
from quantkit.qdq.shared_scales import AnyScales, TypedScales
from quantkit.qdq.weighted_operators import unreachable_operators
from quantkit.values import QuantizedType

if TYPE_CHECKING:
    import onnx

LEAST_OPSET = 13
"""The first opset with per-channel QuantizeLinear."""
LEAST_HALF_OPSET = 19
"""The first opset whose QuantizeLinear reads float16."""
LEAST_FP8_OPSET = 19
"""The first opset with FLOAT8E4M3FN."""


def is_half(model: Model) -> bool:
    """Return whether the weights of a network are float16."""
    kinds = {DTYPES.get(tensor.data_type) for tensor in model.proto.graph.initializer}
    return "float16" in kinds and "float32" not in kinds


def insert_qdq(
    model: Model, scales: AnyScales, choices: Choices | None = None, form: WeightForm = WeightForm.FLOAT
) -> QuantizedNetwork:
    """Insert Q/DQ pairs into a copy of a model. scales: tensor → scale for the type that is chosen, or for each.

    ModelError if nothing gets a pair, the opset is too old and cannot be converted, or a weight is not finite.
    """
    choices = choices or Choices()
    least = LEAST_FP8_OPSET if QuantizedType.FP8 in choices.types else LEAST_OPSET
    if model.opset < least:
        refuse_nothing_quantized(model, place_in(model.proto, index_graph(model.proto), scales, choices))
    proto = with_least_opset(model, least)
    wires = index_graph(proto)
    if "float16" in wires.types.values() and default_opset(proto) < LEAST_HALF_OPSET:
        proto = raise_opset(model, LEAST_HALF_OPSET)
        wires = index_graph(proto)
    placement = place_in(proto, wires, scales, choices)
    refuse_nothing_quantized(model, placement)
    return insert_pairs(model, proto, wires, placement, TypedScales.of(scales, choices.type), form)


def place_in(proto: onnx.ModelProto, wires: GraphIndex, scales: AnyScales, choices: Choices) -> Placement:
    """Return the places of pairs, and why all other operators with weights stay float."""
    placement = place_pairs(wires, scales, choices)
    return replace(placement, left={**placement.left, **unreachable_operators(proto)})


def with_least_opset(model: Model, opset: int) -> onnx.ModelProto:
    """Return the network with opset `opset` or newer: the model's own proto, which is never edited, if it has that."""
    return raise_opset(model, opset) if model.opset < opset else model.proto


@dataclass(frozen=True, slots=True)
class QuantizationPlan:
    """The extent of a quantization. tensors: activations that are quantized to INT8. floats: weighted operators that
    stay float. fp8: those that are FP8."""

    tensors: frozenset[str]
    floats: frozenset[str]
    fp8: frozenset[str] = frozenset()


def plan_quantization(model: Model, scales: AnyScales, choices: Choices) -> QuantizationPlan:
    """Return what `insert_qdq` would quantize with such scales."""
    wires = index_graph(model.proto)
    placement = place_pairs(wires, scales, choices)
    inputs, types = placement.inputs, placement.types
    int8 = {number: places for number, places in inputs.items() if types[number] is QuantizedType.INT8}
    read = {wires.nodes[number].input[k] for number, places in int8.items() for k in places}
    weighted = {number for number, node in enumerate(wires.nodes) if node.op_type in WEIGHTED}
    return QuantizationPlan(
        frozenset(read - wires.constants),
        frozenset(wires.name(n) for n in weighted - inputs.keys()),
        frozenset(wires.name(n) for n in (weighted & inputs.keys()) - int8.keys()),
    )
