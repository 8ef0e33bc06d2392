"""The regions of a network that are switched between float and INT8, and what each costs, from profiles of two engines.

A region is the least set of nodes that no kernel of either engine reaches across: Conv, activation and residual Add,
for example. Its cost in float is the time of its kernels in the float engine; its cost in INT8 that of its kernels in
the Q/DQ engine. Between two regions of different precision a tensor is rounded or written wider:

    float → INT8    a kernel of its own, unless the float kernel is one that TensorRT generates, which rounds by itself
    INT8 → float    the INT8 kernel writes float, twice as many bytes

How long that takes follows from the kernels of the two engines that only move values: a start and so much a byte. Where
the Q/DQ engine rounds a tensor in a kernel of its own anyway, that time is taken.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from quantkit.graph.index import GraphIndex, index_graph
from quantkit.graph.operators import COMMUTING
from quantkit.minimum_cut import BorderCost, PrecisionCost, cheapest_split, split_cost
from quantkit.tuning.speed.layer_nodes import PlacedPairs, int8_tensors, placed_pairs, with_known_nodes

if TYPE_CHECKING:
    import onnx

    from quantkit.backends.tensorrt.layer_profile import ProfiledLayer

FLOAT_BYTES, INT8_BYTES = 2, 1
GENERATED = frozenset({"PointWise", "PointWiseV2", "PWN", "kgen", "Myelin"})
"""Kinds of layers whose kernels TensorRT generates: they round what they write without a kernel of its own."""
MOVING = frozenset({"Reformat"})
"""Kinds of layers that only move values."""


@dataclass(frozen=True, slots=True)
class TransferCost:
    """The cost of a kernel that only moves values: a start, and so much for each byte that it reads or writes."""

    start: float
    byte: float

    def of(self, count: float) -> float:
        """Return the cost of moving that many bytes in a kernel of its own."""
        return self.start + self.byte * count


@dataclass(frozen=True, slots=True)
class RegionCosts:
    """The regions of a network with their costs, in any unit.

    wires: the float network. members: region → its nodes. switched: region → its nodes that read behind a pair; a
    region without any is float in both engines. borders: one for each tensor between regions; tensors: their names.
    outside: the cost of kernels that belong to no region, in the float engine and in the Q/DQ engine.
    """

    wires: GraphIndex
    members: Mapping[str, tuple[str, ...]]
    switched: Mapping[str, tuple[str, ...]]
    parts: Mapping[str, PrecisionCost]
    borders: tuple[BorderCost, ...]
    tensors: tuple[str, ...] = ()
    outside: tuple[float, float] = (0.0, 0.0)
    region_of: Mapping[str, str] = field(default_factory=dict)

    def cheapest(self) -> frozenset[str]:
        """Return the nodes that stay float in the cheapest split, of those that read behind a pair."""
        int8 = cheapest_split(self.parts, self.borders)
        return self.float_nodes(int8)

    def float_nodes(self, int8: Iterable[str]) -> frozenset[str]:
        """Return the nodes of the regions that are not INT8, of those that read behind a pair."""
        chosen = set(int8)
        return frozenset(node for region, nodes in self.switched.items() if region not in chosen for node in nodes)

    def int8_regions(self, kept: Iterable[str]) -> frozenset[str]:
        """Return the regions that are as in the Q/DQ engine if the nodes `kept` stay float."""
        nodes = set(kept)
        floats = {region for region, own in self.switched.items() if own and nodes.issuperset(own)}
        return frozenset(self.parts) - floats

    def cost(self, int8: Iterable[str]) -> float:
        """Return the predicted cost of a split."""
        return split_cost(self.parts, self.borders, frozenset(int8)) + max(self.outside)

    def refined(self, int8: frozenset[str], layers: Sequence[ProfiledLayer], placed: PlacedPairs) -> RegionCosts:
        """Return the costs as the profile of an engine of the split `int8` shows them.

        A region away from a border costs what it took. What one beside a border took more, or less, than was known is
        the cost of its borders, in equal parts.
        """
        seen = LayerAttribution(placed, self.region_of, with_known_nodes(self.wires, placed, layers))
        cut = [crosses(border, int8) for border in self.borders]
        beside = defaultdict[str, list[int]](list)
        for number, border in enumerate(self.borders):
            for region in {border.maker, *border.readers} - {None} if cut[number] else ():
                beside[str(region)].append(number)
        parts, extra = dict(self.parts), defaultdict[int, float](float)
        for region, known in self.parts.items():
            took = seen.regions.get(region, 0.0)
            if region not in beside:
                parts[region] = replace_cost(known, took, in_int8=region in int8)
                continue
            more = took - (known.in_int8 if region in int8 else known.in_float)
            for number in beside[region]:
                extra[number] += more / len(beside[region])
        borders = list(self.borders)
        for number, border in enumerate(self.borders):
            if cut[number]:
                rounded = seen.rounded.get(self.tensors[number], 0.0)
                borders[number] = replace_border(border, int8, max(0.0, rounded + extra[number]))
        return replace(self, parts=parts, borders=tuple(borders))


def crosses(border: BorderCost, int8: frozenset[str]) -> bool:
    """Return whether a tensor lies between regions of different precision."""
    sides = {region is not None and region in int8 for region in (border.maker, *border.readers)}
    return len(sides) == 2


def replace_cost(cost: PrecisionCost, took: float, *, in_int8: bool) -> PrecisionCost:
    """Return the cost of a region with what it took in one of the precisions."""
    return replace(cost, in_int8=took) if in_int8 else replace(cost, in_float=took)


def replace_border(border: BorderCost, int8: frozenset[str], took: float) -> BorderCost:
    """Return a border with what it took in the direction in which a split crosses it."""
    return replace(border, dequantize=took) if border.maker in int8 else replace(border, quantize=took)


def region_costs(
    wires: GraphIndex,
    quantized: onnx.ModelProto,
    in_float: Sequence[ProfiledLayer],
    in_int8: Sequence[ProfiledLayer],
    batch: int,
) -> RegionCosts:
    """Return the regions of a network and their costs, from the profiles of its float engine and of its Q/DQ engine."""
    placed = placed_pairs(wires, quantized)
    in_float, in_int8 = (with_known_nodes(wires, placed, layers) for layers in (in_float, in_int8))
    region_of = find_regions(wires, (in_float, in_int8))
    moving = transfer_cost((*in_float, *in_int8))
    attributed = [LayerAttribution(placed, region_of, layers) for layers in (in_float, in_int8)]
    members: dict[str, list[str]] = defaultdict(list)
    for number in range(len(wires.nodes)):
        if (name := wires.name(number)) in region_of:
            members[region_of[name]].append(name)
    parts = {
        region: PrecisionCost(*(attribution.regions.get(region, 0.0) for attribution in attributed))
        for region in members
    }
    writers = {region_of[n] for layer in in_float if layer.kind in GENERATED for n in layer.nodes if n in region_of}
    written = int8_tensors(wires, placed, in_int8)
    builder = BorderBuilder(wires, placed, region_of, moving, frozenset(writers), batch, written)
    borders = builder.borders(attributed[1].rounded)
    return RegionCosts(
        wires=wires,
        members={region: tuple(nodes) for region, nodes in members.items()},
        switched={region: tuple(n for n in nodes if n in placed.nodes) for region, nodes in members.items()},
        parts=parts,
        borders=tuple(borders.values()),
        tensors=tuple(borders),
        outside=(attributed[0].outside, attributed[1].outside),
        region_of=region_of,
    )


def find_regions(wires: GraphIndex, profiles: Iterable[Sequence[ProfiledLayer]]) -> dict[str, str]:
    """Return node → its region, which is named by its first node; constant nodes belong to none."""
    order = {wires.name(n): n for n in range(len(wires.nodes)) if wires.activations(n)}
    groups = NodeGroups(order)
    timed = set[str]()
    for layers in profiles:
        for layer in layers:
            nodes = [name for name in layer.nodes if name in order]
            timed.update(nodes)
            for name in nodes[1:]:
                groups.join(nodes[0], name)
    for name, number in order.items():  # what no engine shows is part of the kernel that makes its input
        makers = [wires.makers[tensor] for tensor in wires.activations(number) if tensor in wires.makers]
        if name not in timed and makers and (maker := wires.name(makers[0])) in order:
            groups.join(maker, name)
    return {name: groups.first(name) for name in order}


class NodeGroups:
    """Disjoint groups of nodes, each named by its first node."""

    def __init__(self, order: Mapping[str, int]) -> None:
        self._order, self._parents = order, {name: name for name in order}

    def first(self, name: str) -> str:
        """Return the first node of a group."""
        while self._parents[name] != name:
            self._parents[name] = name = self._parents[self._parents[name]]
        return name

    def join(self, one: str, other: str) -> None:
        """Make one group of two."""
        early, late = sorted((self.first(one), self.first(other)), key=self._order.__getitem__)
        self._parents[late] = early


class LayerAttribution:
    """The time of an engine's layers, by region. rounded: tensor → cost of kernels that only round it; outside: cost
    of kernels of no region."""

    def __init__(self, placed: PlacedPairs, region_of: Mapping[str, str], layers: Sequence[ProfiledLayer]) -> None:
        self.regions: dict[str, float] = defaultdict(float)
        self.rounded: dict[str, float] = defaultdict(float)
        self.outside = 0.0
        homes = {layer.name: self._home(layer, region_of) for layer in layers}
        for layer in layers:
            region = homes[layer.name] or self._served(layer, homes)
            tensors = {placed.pairs[name] for name in layer.nodes if name in placed.pairs}
            if region is None and len(tensors) == 1:
                self.rounded[tensors.pop()] += layer.milliseconds
            elif region is None:
                self.outside += layer.milliseconds
            else:
                self.regions[region] += layer.milliseconds

    @staticmethod
    def _home(layer: ProfiledLayer, region_of: Mapping[str, str]) -> str | None:
        return next((region_of[name] for name in layer.nodes if name in region_of), None)

    @staticmethod
    def _served(layer: ProfiledLayer, homes: Mapping[str, str | None]) -> str | None:
        """Return the region of the layer for which a reformat was added: `… for Input Tensor 0 to LAYER`."""
        _, found, name = layer.name.partition(" to ") if layer.name.startswith("Reformatting") else ("", "", "")
        return homes.get(name) if found else None


def transfer_cost(layers: Sequence[ProfiledLayer]) -> TransferCost:
    """Return what moving values costs: by the kernels that only move them, else by those that are fastest per byte."""
    timed = [layer for layer in layers if layer.milliseconds > 0.0]
    if not timed:
        return TransferCost(0.0, 0.0)
    start = min(layer.milliseconds for layer in timed)
    moving = [layer for layer in timed if layer.kind in MOVING] or timed
    rates = [(layer.milliseconds - start) / count for layer in moving if (count := moved_bytes(layer)) > 0]
    rates = [rate for rate in rates if rate > 0.0]
    return TransferCost(start, float(np.median(rates)) if moving is not timed else min(rates, default=0.0))


def moved_bytes(layer: ProfiledLayer) -> int:
    """Return the bytes that a layer reads and writes, weights left out."""
    sizes = {"INT8": 1, "FP16": 2, "BF16": 2, "FP32": 4, "TF32": 4, "INT32": 4, "INT64": 8, "BOOL": 1}
    return sum(tensor.elements * sizes.get(tensor.dtype, FLOAT_BYTES) for tensor in (*layer.inputs, *layer.outputs))


@dataclass(frozen=True, slots=True)
class BorderBuilder:
    """Makes the borders between regions.

    writers: regions whose float kernels round by themselves. written: tensors that are INT8 in the Q/DQ engine; None if
    that is not known.
    """

    wires: GraphIndex
    placed: PlacedPairs
    region_of: Mapping[str, str]
    moving: TransferCost
    writers: frozenset[str]
    batch: int
    written: frozenset[str] | None

    def borders(self, rounded: Mapping[str, float]) -> dict[str, BorderCost]:
        """Return tensor → its border. rounded: tensor → time of the Q/DQ engine's own kernel that rounds it."""
        found = {}
        for tensor in (*self.wires.inputs, *self.wires.makers):
            border = self._border(tensor, rounded.get(tensor, 0.0))
            if border is not None:
                found[tensor] = border
        return found

    def _border(self, tensor: str, rounded: float) -> BorderCost | None:
        number = self.wires.makers.get(tensor)
        maker = None if number is None else self.region_of.get(self.wires.name(number))
        if tensor in self.wires.constants or (number is not None and maker is None):
            return None
        names = [self.region_of.get(self.wires.name(r.number)) for r in self.wires.readers.get(tensor, ())]
        readers = tuple(dict.fromkeys(name for name in names if name is not None and name != maker))
        quantized = self._quantized_readers(tensor)
        if rounded:
            own = tuple(name for name in quantized if name is not None) or readers
            return BorderCost(None, own, rounded) if own else None
        if not readers or not quantized or self._is_float_anyway(tensor):
            return None
        elements = self._elements(tensor)
        kernel = self.moving.of(elements * (FLOAT_BYTES + INT8_BYTES))
        wider = self.moving.byte * elements * (FLOAT_BYTES - INT8_BYTES)
        return BorderCost(maker, readers, 0.0 if maker in self.writers else kernel, wider)

    def _is_float_anyway(self, tensor: str) -> bool:
        """Return whether a tensor is float in the Q/DQ engine as well: the kernels around it round by themselves."""
        return self.written is not None and tensor not in self.written

    def _quantized_readers(self, tensor: str) -> list[str | None]:
        """Return the regions that read a tensor behind a pair, itself or behind operators that only move values."""
        waiting, found = [tensor], list[str | None]()
        while waiting:
            name = waiting.pop()
            found += [self.region_of.get(node) for node in self.placed.readers.get(name, ())]
            for reader, node in self.wires.uses(name):
                if node.op_type in COMMUTING and reader.place == 0:
                    waiting += [output for output in node.output if output]
        return list(dict.fromkeys(found))

    def _elements(self, tensor: str) -> int:
        shape = self.wires.shapes.get(tensor, ())
        return prod(self.batch if size is None else size for size in shape)


def network_index(proto: onnx.ModelProto) -> GraphIndex:
    """Return the index of a float network, in which every node has a name."""
    from quantkit.backends.tensorrt.network import name_nodes

    return index_graph(name_nodes(proto))
