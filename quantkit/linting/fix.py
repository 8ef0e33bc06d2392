"""Mends what can be mended exactly in a Q/DQ network: a copy that computes the same, and that TensorRT takes.

What is exact, and why, says `quantkit.linting.fixable`. Everything else is left as it is, to be quantized again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from quantkit.graph.model import Model, place
from quantkit.graph.names import tensor_names, unique_name
from quantkit.graph.opset import LEAST_IR
from quantkit.graph.subgraphs import captured_names
from quantkit.linting.clip_rule import misread_clips, split
from quantkit.linting.finding import Finding
from quantkit.linting.fixable import MIDDLE, bias_values, is_free, is_shifted_int8, zero_scales
from quantkit.linting.parser_rules import findings_of, zero_form
from quantkit.linting.placement_rules import parameters, quantized_groups
from quantkit.qdq.reader import QdqGraph, QdqNode, QuantizedTensor, read_qdq

if TYPE_CHECKING:
    import onnx

    from quantkit.values import Array


def mend(model: Model) -> tuple[onnx.ModelProto, tuple[Finding, ...]]:
    """A copy without the findings that can be mended exactly, and those findings.

    The copy computes what the model computes, bit for bit; the model itself is untouched, and external weights stay
    where they are. One repair can show another (two pairs become equal), so it goes on until none is left.
    """
    mended: list[Finding] = []
    while True:
        reading = read_qdq(model)
        fixable = [found for found in findings_of(reading) if found.fixable]
        if not fixable:
            return model.proto, tuple(mended)
        mended += fixable
        model = replace(model, proto=without(reading))


def without(reading: QdqGraph) -> onnx.ModelProto:
    """One round of repairs."""
    edit = Edit(reading)
    for carrier in reading.carriers:
        stored = carrier.steps[0].stored
        if stored == "int32":
            for step in carrier.dequantize:
                edit.store_bias(step)
            continue
        if stored == "uint8" and is_shifted_int8(carrier) and is_free(reading, carrier):
            edit.sign(carrier)
        elif stored == "int8":
            edit.write_zeros(carrier)
        raised = zero_scales(reading, carrier)
        if stored in ("int8", "uint8") and raised is not None:
            edit.raise_scales(carrier, raised)
    for groups in quantized_groups(reading).values():
        for first, *others in groups:
            edit.share(first, [step for step in others if step.result not in reading.held])
    edit.split_clips()
    return edit.result()


def with_split_clips(model: Model) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """The network without the Clips that TensorRT 8.6 computes wrongly, and their names; the same one without any."""
    if not any(node.op_type == "Clip" for node in model.proto.graph.node):
        return model.proto, ()
    edit = Edit(read_qdq(model))
    names = edit.split_clips()
    return edit.result() if names else model.proto, names


class Edit:
    """Changes to a copy of a network: inputs of nodes that are replaced, nodes that go, initializers that come."""

    def __init__(self, reading: QdqGraph) -> None:
        self._reading = reading
        self._names = tensor_names(reading.graph)
        self._inputs: dict[tuple[str, int], str] = {}
        """(first output of a node, place) → the name that it reads now."""
        self._renamed: dict[str, str] = {}
        self._dropped: set[str] = set()
        self._split: dict[str, float] = {}
        """Output of a Clip → its lower bound."""
        self._retyped: set[str] = set()
        self._added: list[onnx.TensorProto] = []
        self._known: dict[tuple[str, bytes, tuple[int, ...], str], str] = {}

    def store_bias(self, step: QdqNode) -> None:
        """A float initializer takes the place, and the name, of what a DequantizeLinear makes."""
        values = bias_values(self._reading, step)
        if values is not None:
            self._drop(step)
            self._add(values, step.result)

    def sign(self, carrier: QuantizedTensor) -> None:
        """uint8 with zero point 128 becomes int8 with 0."""
        self._retyped.add(carrier.name)
        stored = self._reading.values(carrier.name) if carrier.quantize is None else None
        if stored is not None:
            signed = (stored.astype(np.int16) - MIDDLE).astype(np.int8)
            name = self._constant(signed, f"{carrier.name}_int8")
            for step in carrier.dequantize:
                self._inputs[step.result, 0] = name
        for step in carrier.steps:
            self._zero(step)

    def write_zeros(self, carrier: QuantizedTensor) -> None:
        """A zero point of 0 of another type or shape becomes int8, one for every scale."""
        for step in carrier.steps:
            absent = step.zero is None and not step.zero_name
            zero = absent or (step.zero is not None and not step.zero.any())
            if zero and zero_form(self._reading, step):
                self._zero(step)

    def raise_scales(self, carrier: QuantizedTensor, raised: Iterable[Array]) -> None:
        """Scales of 0 become the least normal number."""
        for step, scale in zip(carrier.steps, raised, strict=True):
            if step.scale is not None and (step.scale == 0).any():
                self._inputs[step.result, 1] = self._constant(scale, f"{step.node.input[1]}_normal")

    def share(self, first: QdqNode, others: Iterable[QdqNode]) -> None:
        """One QuantizeLinear instead of several equal ones, and one DequantizeLinear, the earliest, behind it."""
        merged = [first, *others]
        if len(merged) == 1:
            return
        readers = {step.result for step in merged}
        behind = [s for s in self._reading.steps.values() if not s.quantizes and s.data in readers]
        kept: dict[tuple[object, ...], QdqNode] = {}
        for step in behind:
            earliest = kept.setdefault(parameters(step), step)
            if earliest is not step and step.result not in self._reading.held:
                self._drop(step)
                self._renamed[step.result] = earliest.result
        for step in merged[1:]:
            self._drop(step)
            self._renamed[step.result] = first.result

    def split_clips(self) -> tuple[str, ...]:
        """Two nodes take the place of each Clip that TensorRT 8.6 computes wrongly; returns their names."""
        clips = list(misread_clips(self._reading))
        for clip in clips:
            low = self._reading.values(clip.input[1])
            assert low is not None
            self._split[clip.output[0]] = float(low.item())
        return tuple(map(place, clips))

    def result(self) -> onnx.ModelProto:
        """The edited copy, without stored tensors that nothing reads any more."""
        copy = type(self._reading.model.proto)()
        copy.CopyFrom(self._reading.model.proto)
        copy.ir_version = max(copy.ir_version, LEAST_IR)
        graph = copy.graph
        before = names_read(graph)
        nodes = [node for node in graph.node if node.output[0] not in self._dropped]
        for node in nodes:
            if len(node.input) == 2 and (node.output[0], 2) in self._inputs:
                node.input.append("")
            for k, name in enumerate(node.input):
                node.input[k] = self._inputs.get((node.output[0], k), self._renamed.get(name, name))
        taken = {node.name for node in nodes}
        del graph.node[:]
        for node in nodes:
            low = self._split.get(node.output[0])
            graph.node.extend([node] if low is None else split(node, low, self._names, taken))
        graph.initializer.extend(self._added)
        sweep(graph, before, self._retyped)
        return copy

    def _drop(self, step: QdqNode) -> None:
        self._dropped.add(step.result)

    def _zero(self, step: QdqNode) -> None:
        shape = () if step.scale is None else step.scale.shape
        if step.scale is None and step.zero is not None:
            shape = step.zero.shape
        self._inputs[step.result, 2] = self._constant(np.zeros(shape, np.int8), f"{step.carrier}_zero_point")

    def _constant(self, values: Array, name: str) -> str:
        """The name of a new initializer; equal ones of the same wish are made once."""
        key = (name, values.tobytes(), values.shape, str(values.dtype))
        if key not in self._known:
            self._known[key] = unique_name(name, self._names)
            self._add(values, self._known[key])
        return self._known[key]

    def _add(self, values: Array, name: str) -> None:
        from onnx import numpy_helper

        self._added.append(numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name))


def names_read(graph: onnx.GraphProto) -> set[str]:
    """Every tensor that something reads, inside inner graphs too."""
    names = {value.name for value in graph.output}
    for node in graph.node:
        names.update(node.input)
        names |= captured_names(node)
    return names


def sweep(graph: onnx.GraphProto, before: set[str], retyped: set[str]) -> None:
    """Remove initializers and Constant nodes that lost their last reader, and the types of what is another now."""
    lost = before - names_read(graph) - {value.name for value in graph.input}
    nodes = [node for node in graph.node if node.op_type != "Constant" or node.output[0] not in lost]
    initializers = [tensor for tensor in graph.initializer if tensor.name not in lost]
    types = [value for value in graph.value_info if value.name not in lost | retyped]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(initializers)
    graph.value_info.extend(types)
