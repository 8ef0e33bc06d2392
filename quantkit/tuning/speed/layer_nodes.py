"""The ONNX nodes of an engine's layers, also of those that TensorRT names by a tensor or not at all.

    conv + relu                               its metadata, or its name, lists the nodes
    {ForeignNode[x...y]}                      a region that is compiled as one: all nodes between its inputs and outputs
    x_Quantize, x_Dequantize_clone_1          a pair of the network, under its own name
    Reformatting CopyNode for Input Tensor 0 to conv + relu    of no node; it serves the layer behind `to`

The tensors have the names of the Q/DQ network, or stand for what a reformat was made of: `Reformatted Input Tensor …`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from quantkit.graph.index import GraphIndex
from quantkit.graph.model import node_name
from quantkit.graph.operators import QDQ

if TYPE_CHECKING:
    import onnx

    from quantkit.backends.tensorrt.layer_profile import ProfiledLayer

CLONE = re.compile(r"_clone_\d+$")
REFORMATTED = ("Reformatted Input Tensor", "Reformatted Output Tensor")


@dataclass(frozen=True, slots=True)
class PlacedPairs:
    """The pairs of a Q/DQ network, by the names of the float network that it was made from.

    readers: tensor → nodes that read it behind a pair. pairs: Q/DQ node → tensor, weights left out. tensors: name in
    the Q/DQ network → name in the float network, where they differ.
    """

    readers: Mapping[str, tuple[str, ...]]
    pairs: Mapping[str, str]
    tensors: Mapping[str, str]

    @property
    def nodes(self) -> frozenset[str]:
        """The nodes that read at least one tensor behind a pair."""
        return frozenset(name for names in self.readers.values() for name in names)


def placed_pairs(wires: GraphIndex, quantized: onnx.ModelProto) -> PlacedPairs:
    """Return where the pairs of a Q/DQ network are. wires: the float network that it was made from."""
    sources: dict[str, str] = {}
    pairs: dict[str, str] = {}
    readers: dict[str, list[str]] = defaultdict(list)
    for node in quantized.graph.node:
        if node.op_type in QDQ:
            tensor = sources.get(node.input[0], node.input[0])
            sources[node.output[0]] = tensor
            if tensor in wires.makers or tensor in wires.inputs:
                pairs[node_name(node)] = tensor
            continue
        for name in node.input:
            if name in sources and sources[name] not in wires.constants:
                readers[sources[name]].append(node_name(node))
    found = {tensor: tuple(dict.fromkeys(names)) for tensor, names in readers.items()}
    return PlacedPairs(found, pairs, sources)


def with_known_nodes(
    wires: GraphIndex, placed: PlacedPairs, layers: Sequence[ProfiledLayer]
) -> tuple[ProfiledLayer, ...]:
    """Return the layers with all nodes that can be found, those of pairs among them."""
    finder = NodeFinder(wires, placed, layers)
    return tuple(replace(layer, nodes=finder.nodes(layer)) for layer in layers)


def int8_tensors(wires: GraphIndex, placed: PlacedPairs, layers: Sequence[ProfiledLayer]) -> frozenset[str] | None:
    """Return the tensors that layers write as INT8, by their names in the float network; None if no type is shown."""
    finder = NodeFinder(wires, placed, layers)
    written = [tensor for layer in layers for tensor in layer.outputs if tensor.dtype]
    return frozenset(finder.tensor(t.name) for t in written if t.dtype == "INT8") if written else None


class NodeFinder:
    """Finds the nodes of layers by their names and tensors."""

    def __init__(self, wires: GraphIndex, placed: PlacedPairs, layers: Sequence[ProfiledLayer]) -> None:
        self._wires, self._placed = wires, placed
        self._names = {wires.name(number) for number in range(len(wires.nodes))}
        self._copies: dict[str, str] = {}
        for layer in layers:
            if layer.inputs and layer.outputs and layer.name.startswith("Reformatting"):
                read, written = layer.inputs[0].name, layer.outputs[0].name
                new, old = (read, written) if read.startswith(REFORMATTED) else (written, read)
                self._copies[new] = old
        self._claimed = {name for layer in layers for name in layer.nodes if name in self._names}

    def nodes(self, layer: ProfiledLayer) -> tuple[str, ...]:
        """Return the nodes of a layer: ONNX nodes of the float network, and pairs."""
        if layer.name.startswith("Reformatting"):
            return ()
        named = (*layer.nodes, *layer.name.split(" + "), CLONE.sub("", layer.name))
        pairs = [name for name in named if name in self._placed.pairs]
        found = [name for name in layer.nodes if name in self._names]
        if not found and not pairs:
            found = self._between(layer)
        return tuple(dict.fromkeys((*found, *pairs)))

    def _between(self, layer: ProfiledLayer) -> list[str]:
        """Return the nodes between the inputs and the outputs of a layer, that no other layer is named after."""
        ends = {self.tensor(tensor.name) for tensor in layer.inputs}
        waiting = [self.tensor(tensor.name) for tensor in layer.outputs]
        seen, numbers = set(ends), set[int]()
        while waiting:
            tensor = waiting.pop()
            number = self._wires.makers.get(tensor)
            if number is None or tensor in seen or self._wires.name(number) in self._claimed:
                continue
            seen.add(tensor)
            numbers.add(number)
            waiting += self._wires.activations(number)
        return [self._wires.name(number) for number in sorted(numbers)]

    def tensor(self, name: str) -> str:
        """Return the name of a tensor in the float network."""
        name = self._copies.get(name, name)
        name = CLONE.sub("", name)
        return self._placed.tensors.get(name, name)
