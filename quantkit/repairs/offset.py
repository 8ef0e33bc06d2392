"""Offsets: the whole INT8 range for activations that are hardly negative, although every zero point is 0.

Behind a ReLU half of the symmetric INT8 values is never used. Asymmetric quantization would use them through a zero
point, which TensorRT does not have; a bias does the same. With y = W·x + b and x ≥ 0,

    x' = x − c        by the bias of the operator that makes x, and the bounds of the clip behind it
    y  = W·x' + (b + c·ΣW)        W as it is after quantization

and x' lies around 0, so that the same 255 steps cover half the range: 6 dB less rounding error, in the same time. The
network computes what it did. It needs readers that bring in no zeros of their own, which padding does. The step is the
one of the least squared error over the histogram (the MSE rule with 255 steps on one side); zero stays on the grid.

Shifting values into biases: Nagel et al. 2019 (arXiv 1906.04721, §4.1.3, "high biases"); that a zero point can be folded
into a bias: Jacob et al. 2018 (arXiv 1712.05877, §2.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log10
from typing import TYPE_CHECKING

import numpy as np

from quantkit.graph.inserting import channel_scales, codes_of, fresh, names_of, values_of, weight_axis
from quantkit.graph.model import Model
from quantkit.graph.wiring import Wiring, wiring
from quantkit.histogram import Histogram
from quantkit.numerics import LEVELS, float32
from quantkit.rules import least_squares

if TYPE_CHECKING:
    import onnx

    from quantkit.values import Array

STEPS = 255
NEGATIVE = 0.1
"""Share of the maximum that the minimum may lie below 0."""
POINTWISE = frozenset({"Relu", "Clip", "Sigmoid", "HardSwish", "HardSigmoid", "Gelu", "Mul", "LeakyRelu", "Softplus"})
"""Makers behind which TensorRT fuses a subtraction, or that a bias can be moved through."""


@dataclass(frozen=True, slots=True)
class Offset:
    """One tensor that was moved. name: the tensor that takes its place; gain: of its own error, in dB."""

    tensor: str
    name: str
    offset: float
    scale: float
    gain: float


@dataclass(frozen=True, slots=True)
class WithOffsets:
    """The network with offsets, and what was moved."""

    proto: onnx.ModelProto
    offsets: tuple[Offset, ...]

    @property
    def scales(self) -> dict[str, float]:
        """The scales of the tensors that came in."""
        return {offset.name: offset.scale for offset in self.offsets}


def with_offsets(model: Model, histograms: Mapping[str, Histogram]) -> WithOffsets:
    """Move every tensor that can be moved and gains by it; the model itself is untouched."""
    proto = type(model.proto)()
    proto.CopyFrom(model.proto)
    wires = wiring(proto)
    mover = Mover(model, proto, wires)
    offsets = []
    for tensor in list(wires.makers):
        histogram = histograms.get(tensor)
        if histogram is None or not mover.can_move(tensor):
            continue
        if found := offset_of(tensor, histogram):
            offsets.append(mover.move(found))
    mover.finish()
    return WithOffsets(proto, tuple(offsets))


def offset_of(tensor: str, histogram: Histogram) -> Offset | None:
    """The offset of a tensor; None where it is no one-sided one, or nothing is gained."""
    low, high = min(histogram.minimum, 0.0), histogram.maximum
    if high <= 0.0 or -low > NEGATIVE * high:
        return None
    threshold, error = least_squares(histogram, STEPS)
    _, before = least_squares(histogram, LEVELS)
    step = float32((threshold - low) / STEPS)
    if step <= 0.0 or error <= 0.0:
        return None
    # Values below 0 take a part of the range, and with it of the gain.
    gain = 10 * log10(before / (error * ((threshold - low) / threshold) ** 2)) if before > 0 else 0.0
    zero = -(LEVELS + 1) + round(-low / step)
    return Offset(tensor, tensor, -zero * step, step, gain) if gain > 1.0 else None


class Mover:
    """Edits a copy of a network: makers, readers, and the biases of both."""

    def __init__(self, model: Model, proto: onnx.ModelProto, wires: Wiring) -> None:
        self._model, self._proto, self._wires = model, proto, wires
        self._names = names_of(proto.graph)
        self._before: dict[int, list[onnx.NodeProto]] = {}
        self._behind: dict[int, list[onnx.NodeProto]] = {}
        self._added: list[onnx.TensorProto] = []

    def can_move(self, tensor: str) -> bool:
        """Whether all that reads a tensor can take an offset into its bias, and its maker can take it out."""
        maker, readers = self._wires.maker(tensor), list(self._wires.reading(tensor))
        return (
            maker is not None
            and maker.op_type in POINTWISE
            and tensor not in self._wires.outputs
            and bool(readers)
            and all(reader.place == 0 and self._absorbs(node) for reader, node in readers)
        )

    def _absorbs(self, node: onnx.NodeProto) -> bool:
        """Whether an operator has weights that are known, brings in no zeros, and has one of the forms y = W·x + b."""
        attributes = {a.name: a for a in node.attribute}
        if len(node.input) < 2 or self._wires.weights.get(node.input[1]) is None:
            return False
        bias_known = len(node.input) < 3 or not node.input[2] or node.input[2] in self._wires.weights
        if node.op_type == "Conv":
            padded = "pads" in attributes and any(attributes["pads"].ints)
            automatic = attributes["auto_pad"].s if "auto_pad" in attributes else b"NOTSET"
            return bias_known and not padded and automatic in (b"NOTSET", b"VALID")
        if node.op_type == "Gemm":
            plain = all(attributes[name].f == 1.0 for name in ("alpha", "beta") if name in attributes)
            return bias_known and plain and not ("transA" in attributes and attributes["transA"].i)
        return node.op_type == "MatMul" and len(self._wires.weights[node.input[1]].dims) == 2

    def move(self, found: Offset) -> Offset:
        """Move one tensor by its offset."""
        from dataclasses import replace

        name = fresh(f"{found.tensor}_offset", self._names)
        readers = list(self._wires.reading(found.tensor))
        for reader, node in readers:
            node.input[reader.place] = name
            self._into_bias(reader.number, node, found.offset)
        self._out_of_maker(found, name)
        return replace(found, name=name)

    def _out_of_maker(self, found: Offset, name: str) -> None:
        """Take the offset out of what the maker makes: through the clip into the bias before it, else by a Sub."""
        from onnx import helper

        number = self._wires.makers[found.tensor]
        node = self._wires.nodes[number]
        if node.op_type in ("Relu", "Clip") and self._through_clip(node, found.offset):
            node.output[0] = name
            return
        offset = self._constant(f"{name}_value", np.float32(found.offset))
        node_name = f"{name}_Sub"
        self._behind.setdefault(number, []).append(
            helper.make_node("Sub", [found.tensor, offset], [name], node_name)
        )

    def _through_clip(self, node: onnx.NodeProto, offset: float) -> bool:
        """Move the bounds of a clip, and the bias of the convolution before it; False where that cannot be."""
        before = self._wires.makers.get(node.input[0])
        source = self._wires.nodes[before] if before is not None else None
        bounds = [self._bound(node, k) for k in (1, 2)]
        if source is None or source.op_type not in ("Conv", "Gemm") or None in bounds:
            return False
        if len(self._wires.readers[node.input[0]]) != 1 or node.input[0] in self._wires.outputs:
            return False
        if len(source.input) > 2 and source.input[2] and source.input[2] not in self._wires.weights:
            return False
        self._add_to_bias(source, self._channels(source), -offset)
        low, high = (float(b) for b in bounds if b is not None)
        names = [self._constant(f"{node.output[0]}_least", np.float32(low - offset))]
        if high != np.inf:
            names.append(self._constant(f"{node.output[0]}_most", np.float32(high - offset)))
        node.op_type = "Clip"
        del node.input[1:], node.attribute[:]
        node.input.extend(names)
        return True

    def _bound(self, node: onnx.NodeProto, k: int) -> float | None:
        """The lower (1) or upper (2) bound of a Relu or Clip; None where it is not known."""
        if node.op_type == "Relu":
            return 0.0 if k == 1 else np.inf
        for attribute in node.attribute:  # before operator set 11
            if attribute.name == ("min", "max")[k - 1]:
                return attribute.f
        if len(node.input) <= k or not node.input[k]:
            return (-np.inf, np.inf)[k - 1]
        weight = self._wires.weights.get(node.input[k])
        return None if weight is None else float(values_of(weight, self._model))

    def _channels(self, node: onnx.NodeProto) -> int:
        dims = self._wires.weights[node.input[1]].dims
        if node.op_type == "Conv":
            return int(dims[0])
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        return int(dims[0] if transposed else dims[1])

    def _into_bias(self, number: int, node: onnx.NodeProto, offset: float) -> None:
        """What a reader loses by an offset of its input, into its bias."""
        from onnx import helper

        weight = self._quantized(node)
        if node.op_type == "Conv":
            self._add_to_bias(node, len(weight), offset * weight.sum(axis=tuple(range(1, weight.ndim))))
            return
        transposed = node.op_type == "Gemm" and any(a.name == "transB" and a.i for a in node.attribute)
        shift = offset * weight.sum(axis=1 if transposed else 0)
        if node.op_type == "Gemm":
            self._add_to_bias(node, len(shift), shift)
            return
        inner, outer = fresh(f"{node.output[0]}_before_offset", self._names), node.output[0]
        bias = self._constant(f"{outer}_offset_bias", shift.astype(np.float32))
        node.output[0] = inner
        self._behind.setdefault(number, []).append(
            helper.make_node("Add", [inner, bias], [outer], f"{node.name or outer}_offset_Add")
        )

    def _quantized(self, node: onnx.NodeProto) -> Array:
        """The weights as they are after quantization: what their rounding does to an offset has to be in the bias too,
        or every value that is 0 would bring it in."""
        values = values_of(self._wires.weights[node.input[1]], self._model)
        axis = weight_axis(node, 1, values.ndim)
        scales = channel_scales(values, axis)
        shape = [1] * values.ndim
        shape[axis] = -1
        return codes_of(values, scales, axis) * scales.reshape(shape).astype(np.float64)

    def _add_to_bias(self, node: onnx.NodeProto, channels: int, shift: Array | float) -> None:
        """Give an operator a bias of its own, `shift` more than before."""
        there = node.input[2] if len(node.input) > 2 else ""
        old = 0.0
        if there:
            weight = next((t for t in self._added if t.name == there), None) or self._wires.weights[there]
            old = values_of(weight, self._model).astype(np.float64)
        bias = np.broadcast_to(old, (channels,)) + shift
        name = self._constant(f"{there or node.output[0] + '_bias'}_offset", bias.astype(np.float32))
        del node.input[2:]
        node.input.append(name)

    def _constant(self, name: str, value: Array | np.float32) -> str:
        from onnx import numpy_helper

        name = fresh(name, self._names)
        self._added.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def finish(self) -> None:
        """Put what came in to its place."""
        nodes: list[onnx.NodeProto] = []
        for number, node in enumerate(self._wires.nodes):
            nodes += [node, *self._behind.get(number, [])]
        graph = self._proto.graph
        copies = []
        for node in nodes:
            copied = type(node)()
            copied.CopyFrom(node)
            copies.append(copied)
        del graph.node[:]
        graph.node.extend(copies)
        used = {name for node in copies for name in node.input}
        graph.initializer.extend(t for t in self._added if t.name in used)
