"""The places of Q/DQ pairs, chosen so that TensorRT runs in INT8 what gains by it, with reasons for what stays float.

The rules are those of TensorRT's developer guide ("Working with quantized types", explicit quantization):

    weighted operators    Conv, ConvTranspose, Gemm, MatMul with weights: the activation per tensor, the weights per
                          output channel; the bias stays float
    residual Add          the skip input only, so that Conv + Add + activation fuse and pass on INT8
    average pools         their input, if INT8 comes out at the other side as well: they do not commute with Q
    everything else       nothing: Q moves backward, DQ forward through what commutes (ReLU, MaxPool, Reshape, Concat)

A pool or an Add gets its pair only if its result is quantized further on; otherwise INT8 would be left at once. All
inputs of a Concat, and both sides of a MaxPool, Reshape or Transpose, share one scale: the Concat's own, as TensorRT
assigns it in implicit mode, or that of the tensor before. If such an operator reads what a Concat joins (the skip of a
U-Net), and that has no pair of its own, TensorRT needs a single scale only to write the tensor once: the scales are
kept apart if they differ by more than a factor of two, which would cost a bit or more.

    policy      also quantizes
    tensorrt    nothing
    conv-only   less: of the weighted operators only convolutions
    all         products of two activations (attention), gates, the inputs of Softmax, LayerNormalization, Sigmoid and
                other activations, and both inputs of every Add and Mul

For TensorRT before 10, what only moves values reads behind the pair of its tensor, too (`moving_readers`), an Add whose
skip a Resize makes has no pair (`is_enlarged_skip`), and what reads the results of depthwise convolutions and of those
of images reads them behind pairs, gates included (`int8_readers`).

In FP8 the operators are those with FP8 kernels (`missing_fp8_kernel`); policy `all` adds products and Adds.

Where some operators are INT8 and others FP8, each reads all of its inputs in its own type. A weighted operator has the
type that was chosen for it, an Add that of the convolution it fuses into (`leader_of_add`), a pool INT8. A pool or an
Add has its pair only if its result is read further on in the same type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quantkit.graph.index import GraphIndex, TensorReader
from quantkit.graph.operators import (
    ACTIVATIONS,
    AVERAGE_POOLS,
    COMMUTING,
    CONVOLUTIONS,
    CURVED,
    NORMALIZING,
    ONNX_DOMAINS,
    WEIGHTED,
)
from quantkit.qdq.float_reason import LEAST, FloatCause, FloatReason, int8_obstacle
from quantkit.qdq.patterns.detection_heads import find_detection_heads
from quantkit.qdq.patterns.gates import find_gates, gate_nodes
from quantkit.qdq.patterns.int8_kernels import FLOAT_OUTPUT_FROM, missing_int8_kernel, reads_silu
from quantkit.qdq.patterns.int8_readers import Int8Readers, find_int8_readers
from quantkit.qdq.patterns.residual_adds import comes_from_weighted, is_enlarged_skip, leader_of_add, skip_inputs
from quantkit.qdq.shared_scales import (
    AnyScales,
    TypedScales,
    apply_shared_scales,
    find_shared_scales,
    move_sources,
    moving_readers,
    scale_sharing_nodes,
)
from quantkit.qdq.weighted_operators import missing_fp8_kernel
from quantkit.values import NamedChoice, QuantizedType

if TYPE_CHECKING:
    import onnx

APART = 2.0
"""Scales that differ by more than this factor are not shared for speed alone."""


class Policy(NamedChoice):
    """How much of a network is quantized."""

    TENSORRT = "tensorrt"
    CONV_ONLY = "conv-only"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Choices:
    """The user's choices for the placement. exclude, include: names of nodes, or of their first output."""

    policy: Policy = Policy.TENSORRT
    exclude: frozenset[str] = frozenset()
    include: frozenset[str] = frozenset()
    """Nodes that are quantized even if the policy, or a detection head, would keep them float."""
    kept: Mapping[str, FloatReason] = field(default_factory=dict, hash=False)
    """Nodes that stay float for a reason outside the network: INT8 is not faster on a certain GPU, or the type that was
    asked for has no kernel → that reason."""
    tensorrt: int | None = None
    """The major version of TensorRT that the network is for; None: the newest."""
    type: QuantizedType = QuantizedType.INT8
    """The type that tensors are quantized to."""
    fp8: frozenset[str] = frozenset()
    """Nodes that are FP8 in a network whose other operators are INT8."""

    def type_of(self, node: str) -> QuantizedType:
        """Return the type that is chosen for a node."""
        return QuantizedType.FP8 if node in self.fp8 else self.type

    @property
    def types(self) -> tuple[QuantizedType, ...]:
        """The types that nodes may have, that of most of them first."""
        return (self.type, QuantizedType.FP8) if self.fp8 and self.type is QuantizedType.INT8 else (self.type,)


@dataclass(frozen=True, slots=True)
class Placement:
    """The places of pairs. inputs: node number → its inputs that are read behind a pair.

    left: operator that could be quantized → why it stays float. scale_of: tensor → the tensor whose scale it takes.
    types: node number → the type of its pairs, for every node of `inputs`.
    """

    inputs: Mapping[int, tuple[int, ...]]
    left: Mapping[str, FloatReason]
    scale_of: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[int, QuantizedType] = field(default_factory=dict)


def place_pairs(wires: GraphIndex, scales: AnyScales, choices: Choices | None = None) -> Placement:
    """Choose the places of pairs. scales: tensor → scale; an operator without a needed scale stays float."""
    choices = choices or Choices()
    return PairPlacer(wires, TypedScales.of(scales, choices.type), choices).placement()


class PairPlacer:
    """The decisions in progress: weighted operators first, then backward what depends on the operators behind it."""

    def __init__(self, wires: GraphIndex, scales: TypedScales, choices: Choices) -> None:
        self._wires, self._choices = wires, choices
        self._own = scales.by_type[choices.type]
        ranges = {name: scale * choices.type.largest for name, scale in self._own.items()}
        self._heads = find_detection_heads(wires, ranges)
        gates = find_gates(wires)
        self._gates = gate_nodes(gates)
        self._behind = find_int8_readers(wires, gates) if self._is_for_tensorrt8 else Int8Readers()
        self._float = {n for n in range(len(wires.nodes)) if self._kept(n)}
        self._scale_of = find_shared_scales(wires, self._float)
        self._typed = scales.shared(self._scale_of)
        self._scales = self._typed.by_type[choices.type]
        self._inputs: dict[int, tuple[int, ...]] = {}
        self._left: dict[int, FloatReason] = {}
        self._leaders: dict[int, int | None] = {}

    def placement(self) -> Placement:
        """Decide about all operators."""
        numbers = range(len(self._wires.nodes))
        for number in numbers:
            self._decide(number, self._weighted(number))
        weighted = dict(self._inputs)
        self._decide_others()
        while lacking := self._lacking():  # what lies in front of them gets INT8 for nothing, and is decided again
            self._inputs = {n: places for n, places in weighted.items() if n not in lacking}
            self._left = {n: why for n, why in self._left.items() if self._wires.nodes[n].op_type in WEIGHTED} | lacking
            weighted = dict(self._inputs)
            self._decide_others()
        if apart := self._apart():
            self._scale_of = find_shared_scales(self._wires, self._float, apart)
        if self._is_for_tensorrt8:
            self._read_behind_pairs(apart)
        return Placement(
            dict(sorted(self._inputs.items())),
            {self._wires.name(n): why for n, why in sorted(self._left.items())},
            self._scale_of,
            {number: self._type(number) for number in sorted(self._inputs)},
        )

    def _apart(self) -> set[int]:
        """Return the operators that only move values whose two sides keep scales of their own.

        In front of them lies what a Concat joins, without a pair of its own, and a shared scale would be far from their
        own.
        """
        nodes = self._wires.nodes
        paired = {nodes[n].input[k] for n, places in self._inputs.items() for k in places}
        forcing = scale_sharing_nodes(self._wires, self._float)
        joined = {name for n in forcing if nodes[n].op_type == "Concat" for name in self._wires.activations(n)}
        found = set()
        for number in forcing:
            before, behind = self._wires.activations(number)[0], nodes[number].output[0]
            own, shared = self._own.get(behind, 0.0), self._scales.get(behind, 0.0)
            far = max(own, shared) > APART * min(own, shared)
            fits = own >= LEAST[self._wires.types.get(behind, "float32")] if far else False
            if nodes[number].op_type != "Concat" and before in joined and fits:
                source = move_sources(self._wires, before)
                if source and not paired & source:
                    found.add(number)
        return found

    @property
    def _is_for_tensorrt8(self) -> bool:
        """True if the network is for a TensorRT without kernels that newer ones have."""
        return self._choices.tensorrt is not None and self._choices.tensorrt < FLOAT_OUTPUT_FROM

    def _read_behind_pairs(self, apart: set[int]) -> None:
        """Let what only moves values read behind pairs. apart: nodes whose two sides keep scales of their own."""
        scales = apply_shared_scales(self._own, self._scale_of)
        kept = {n for n in range(len(self._wires.nodes)) if self._wires.name(n) in self._choices.exclude}
        for number, places in moving_readers(self._wires, self._inputs, apart | kept).items():
            if not int8_obstacle(self._wires, number, places, scales):
                self._inputs[number] = places

    def _decide(self, number: int, places: tuple[int, ...]) -> None:
        if not places:
            return
        scales = self._typed.by_type[self._type(number)]
        reason = self._kept(number) or int8_obstacle(self._wires, number, places, scales)
        if reason:
            self._left[number] = reason
        else:
            self._inputs[number] = places

    def _decide_others(self) -> None:
        """Place all pairs that could pay, then withdraw those that do not; pools of a tensor would block each other."""
        found = {n: self._others(n) for n in reversed(range(len(self._wires.nodes))) if n not in self._inputs}
        for number, places in found.items():
            self._decide(number, places)
        while withdrawn := [n for n, places in found.items() if places and not self._gains(n)]:
            for number in withdrawn:
                found[number] = ()
                self._inputs.pop(number, None)
                self._left.pop(number, None)

    def _lacking(self) -> dict[int, FloatReason]:
        """Return what was quantized and has no INT8 kernel in TensorRT 8, or a slow one: convolutions, and those of
        gates that are not read behind pairs."""
        if not self._is_for_tensorrt8:
            return {}
        lacking = {number: missing_int8_kernel(self._wires, number, self._inputs) for number in self._inputs}
        lacking |= {number: self._gate_reason(number) for number in self._behind.unused(self._inputs)}
        return {number: reason for number, reason in lacking.items() if reason and not self._is_wanted(number)}

    def _gate_reason(self, number: int) -> FloatReason:
        """Return why a quantized operator of a gate should be float: its product lacks a scale, or as for any gate."""
        products = sorted(self._behind.gates[number] - self._inputs.keys())
        found = [int8_obstacle(self._wires, n, self._behind.places[n], self._scales) for n in products]
        return next(filter(None, found), FloatReason(FloatCause.GATE))

    def _kept(self, number: int) -> FloatReason | None:
        """Return why a node stays float although it could be quantized; None if it does not."""
        name, node = self._wires.name(number), self._wires.nodes[number]
        if name in self._choices.exclude:
            return FloatReason(FloatCause.EXCLUDED)
        if name in self._choices.include:
            return None
        if name in self._choices.kept:
            return self._choices.kept[name]
        if number in self._heads and not (self._is_for_tensorrt8 and reads_silu(self._wires, number)):
            return FloatReason(FloatCause.DETECTION_HEAD, f"({self._heads[number]})")
        policy = self._choices.policy
        if self._choices.type_of(name) is QuantizedType.FP8 and node.op_type in CONVOLUTIONS:
            weight = self._wires.weights.get(node.input[1])
            if missing := missing_fp8_kernel(node, None if weight is None else tuple(weight.dims)):
                return FloatReason(FloatCause.FP8_KERNEL, missing)
        if policy is Policy.CONV_ONLY and node.op_type in WEIGHTED - CONVOLUTIONS:
            return FloatReason(FloatCause.CONV_ONLY)
        if policy is not Policy.ALL:
            if is_product(self._wires, node):
                convolves = node.op_type in CONVOLUTIONS
                return FloatReason(FloatCause.WEIGHTS_FROM_DATA if convolves else FloatCause.PRODUCT)
            if number in self._gates and number not in self._behind.gates:
                return FloatReason(FloatCause.GATE)
        return None

    def _weighted(self, number: int) -> tuple[int, ...]:
        node = self._wires.nodes[number]
        if node.op_type not in WEIGHTED or node.domain not in ONNX_DOMAINS:
            return ()
        depends = [name not in self._wires.constants for name in node.input[:2]]
        return (0, 1) if any(depends) else ()

    def _others(self, number: int) -> tuple[int, ...]:
        """Return the inputs of an operator without weights that could get a pair."""
        node = self._wires.nodes[number]
        if node.domain not in ONNX_DOMAINS:
            return ()
        if self._is_wanted(number) and (places := self._everything(number)):
            return places
        if places := self._behind.places.get(number, ()):
            return places
        if node.op_type in AVERAGE_POOLS:
            return () if self._is_fp8(number) else (0,)
        if node.op_type != "Add":
            return ()
        skip = skip_inputs(self._wires, number, self._inputs)
        return () if self._is_for_tensorrt8 and is_enlarged_skip(self._wires, number, skip) else skip

    def _gains(self, number: int) -> bool:
        """Return whether INT8 comes out behind an operator without weights, or the user wants it there."""
        node = self._wires.nodes[number]
        if self._wires.name(number) in self._choices.include or (self._is_wanted(number) and self._everything(number)):
            return True
        if number in self._behind.places:
            return self._behind.gains(self._wires, number, self._inputs)
        if node.op_type in AVERAGE_POOLS:
            # a second copy for the pool alone, where the tensor is needed in float as well, gains nothing
            return self._is_quantized_behind(number, COMMUTING) and self._all_quantized(node.input[0], number)
        return self._is_quantized_behind(number, COMMUTING | ACTIVATIONS)

    def _is_wanted(self, number: int) -> bool:
        """Return whether the user wants what policy `all` quantizes, everywhere or here."""
        return self._choices.policy is Policy.ALL or self._wires.name(number) in self._choices.include

    def _everything(self, number: int) -> tuple[int, ...]:
        """Return the inputs to which policy `all` adds pairs."""
        node = self._wires.nodes[number]
        if node.op_type in NORMALIZING | CURVED and not self._is_fp8(number):
            fused = node.op_type not in NORMALIZING and self._fuses(node.input[0])
            return (0,) if self._wires.activations(number) and not fused else ()
        if node.op_type == "Add" or (node.op_type == "Mul" and not self._is_fp8(number)):
            if node.op_type == "Mul" and any(self._fuses(name) for name in self._wires.activations(number)):
                return ()  # x·sigmoid(x), fused behind the operator that makes x
            skip = skip_inputs(self._wires, number, self._inputs) if node.op_type == "Add" else ()
            return skip or ((0, 1) if len(self._wires.activations(number)) == 2 else ())
        return ()

    def _fuses(self, tensor: str) -> bool:
        """Return whether a quantized weighted operator makes a tensor, so that TensorRT fuses what reads it."""
        return comes_from_weighted(self._wires, tensor, self._inputs, alone=False)

    def _is_quantized_behind(self, number: int, through: frozenset[str]) -> bool:
        """Return whether an operator's result is read behind a pair of its own type."""
        made, own = self._wires.nodes[number].output[0], self._type(number)
        return any(self._reads_behind_pair(reader, own) for reader, _ in self._wires.uses_through(made, through))

    def _all_quantized(self, tensor: str, but: int) -> bool:
        """Return whether all other readers of a tensor read it behind the pair of one; True if there are none."""
        if tensor in self._wires.outputs:
            return False
        others = [reader for reader, _ in self._wires.uses_through(tensor) if reader.number != but]
        return all(self._reads_behind_pair(reader, self._type(but)) for reader in others)

    def _reads_behind_pair(self, reader: TensorReader, kind: QuantizedType) -> bool:
        return reader.place in self._inputs.get(reader.number, ()) and self._type(reader.number) is kind

    def _is_fp8(self, number: int) -> bool:
        return self._choices.type_of(self._wires.name(number)) is QuantizedType.FP8

    def _type(self, number: int) -> QuantizedType:
        """Return the type that an operator reads all of its inputs in."""
        chosen = self._choices.type_of(self._wires.name(number))
        if len(self._choices.types) == 1 or self._wires.nodes[number].op_type != "Add":
            return chosen
        if number not in self._leaders:  # weighted operators are decided before any Add
            self._leaders[number] = leader_of_add(self._wires, number, self._inputs)
        leader = self._leaders[number]
        return chosen if leader is None else self._choices.type_of(self._wires.name(leader))


def is_product(wires: GraphIndex, node: onnx.NodeProto) -> bool:
    """Return whether both factors of a product depend on the data."""
    return node.op_type in WEIGHTED and all(name not in wires.constants for name in node.input[:2])
