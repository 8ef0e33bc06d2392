"""Networks between float and Q/DQ: any subset of a Q/DQ network's layers is quantized, the others compute as in float.

    layer       an operator that reads at least one tensor behind a pair. What it reads there, weights included, is its
                quantization, so that a wrong scale is an error of the layers that read it.
    companion   a constant behind a layer that quantization changed (the Add of a MatMul's bias): it goes with the layer
    outputs     a pair that nothing but the end of the network reads goes with the operator that makes its tensor

In float, a layer reads the tensors themselves, and the weights and the bias of the float network if one is given that
has the operator under the same name; otherwise the values in the file, INT8 weights as the floats they stand for.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

from quantkit.errors import ModelError
from quantkit.graph.dead_nodes import prune_nodes
from quantkit.graph.dependencies import constant_tensors
from quantkit.graph.index import wire_graph
from quantkit.graph.messages import copy_without
from quantkit.graph.model import DTYPES, Model, node_name
from quantkit.graph.names import tensor_names, unique_name
from quantkit.graph.node_edits import insert_behind
from quantkit.graph.operators import CLIPPING
from quantkit.graph.weights import stored_tensors, weight_values
from quantkit.qdq.float_counterpart import FloatCounterpart
from quantkit.qdq.grid import Grid
from quantkit.qdq.pairs import FoundPairs, find_pairs
from quantkit.qdq.reader import is_qdq
from quantkit.qdq.stored_weights import restore_weights
from quantkit.values import QuantizedType

if TYPE_CHECKING:
    import onnx

    from quantkit.values import Array

FLOATS = frozenset({"float32", "float16"})
FLOAT, COUNTERPART = "|float", "|counterpart"
"""Suffixes of names that the file lacks: of float tensors, and of the float counterpart of a layer."""
QUANTIZED = re.compile(rf"u?int\d+|{QuantizedType.FP8.stored}")
"""The types that pairs of a layer may have."""
BIAS = "int32"
"""The type of quantized biases, which do not count as weights."""
LAST = -1
"""Stands for the pair behind a layer's output, which is an output of the network."""


@dataclass(frozen=True, slots=True)
class QuantizedLayer:
    """An operator that reads behind pairs.

    node: its name, in the float network if that has it. tensors: activations that it reads quantized. weights: the
    inputs that are quantized weights. output: its first. parameters: number of its weights. matched: whether the float
    network has it. type: that of its pairs; empty if it is unknown, or they differ.
    """

    node: str
    operator: str
    tensors: tuple[str, ...]
    weights: tuple[int, ...]
    output: str
    parameters: int
    matched: bool
    type: str = ""


@dataclass(frozen=True, slots=True)
class QuantizedWeight:
    """A weight of a layer: its float values, its quantized values, and their grid."""

    name: str
    node: str
    values: Array
    quantized: Array
    grid: Grid

    @property
    def per_tensor(self) -> bool:
        """True if it has a single scale."""
        return self.grid.scale is not None and self.grid.scale.size == 1


@dataclass(frozen=True, slots=True)
class LayerPart:
    """A layer with its node number, and (node number, input) → the name that is read there in float."""

    layer: QuantizedLayer
    number: int
    floats: Mapping[tuple[int, int], str]


class PartialQuantization:
    """The variants of a Q/DQ network. plain: the float network that it was made from, BatchNormalizations folded.

    `layers` are in graph order; `left`: Q/DQ nodes that stay in every variant, with the reason; `scales`: activation →
    its grid, the last where it has pairs of several types (`in_both_types`). ModelError if no layer is quantized.
    """

    def __init__(self, quantized: Model, plain: Model | None = None) -> None:
        self._model, self._graph = quantized, quantized.proto.graph
        self._wiring = wire_graph(self._graph)
        self._bare = copy_without(quantized.proto, "graph")  # without weights: a variant copies only its own
        self._bare.graph.CopyFrom(copy_without(self._graph, "initializer"))
        found = quantized_pairs(find_pairs(quantized))
        self.left: Mapping[str, str] = found.left
        restored = restore_weights(quantized, found.stored)
        self._taken = tensor_names(self._graph)
        for weight in {id(w): w for w in restored.weights.values()}.values():
            weight.name = unique_name(weight.name, self._taken)  # the nodes that make it stay, and so does their result
        self._added: dict[str, onnx.TensorProto] = {}
        self._sources = float_sources(found, {name: w.name for name, w in restored.weights.items()})
        self._restored = {weight.name: weight for weight in restored.weights.values()}
        constants = constant_tensors(self._graph)
        self._constants = constants | self._restored.keys()
        self._known = {**stored_tensors(self._graph), **self._restored}
        self._grids: dict[str, Grid] = {item.dequantized: item.grid for item in found.stored}
        self._grids |= {name: pair.grid for pair in found.pairs for name in pair.dequantized}
        self._plain = FloatCounterpart(plain) if plain is not None else None
        self._lost = dict(self._find_lost_clips())
        self._sources |= {k: self._lost[t].output[0] for k, t in self._sources.items() if t in self._lost}
        self._file_names = {node.output[0]: tensor for tensor, node in self._lost.items()}
        grids: dict[str, list[Grid]] = {}
        for pair in found.pairs:
            if pair.dequantized and pair.tensor not in self._constants and pair.grid.is_known:
                grids.setdefault(self.name_in_file(self._sources[pair.dequantized[0]]), []).append(pair.grid)
        self.scales = {name: own[-1] for name, own in grids.items()}
        self.in_both_types = tuple(name for name, own in grids.items() if len({grid.is_fp8 for grid in own}) > 1)
        self._parts: dict[str, LayerPart] = {}
        for part in self._find_parts():
            again = part.layer.node in self._parts  # names need not be unique
            layer = replace(part.layer, node=part.layer.output, matched=False) if again else part.layer
            self._parts[layer.node] = replace(part, layer=layer)
        self.layers = tuple(part.layer for part in self._parts.values())
        if not self.layers:
            raise ModelError(
                f"{quantized.path} has no operator that reads behind a Q/DQ pair",
                remedy="use a Q/DQ model, for example from quantkit quantize",
            )

    def with_layers(self, names: Collection[str], counterpart: str = "", also: Sequence[str] = ()) -> Model:
        """Return the network in which the layers `names` are quantized, and no others.

        counterpart: one of them whose float counterpart is computed as well, from the same inputs (`output_pair`).
        also: tensors that are going to be read.
        """
        import onnx

        floats: dict[tuple[int, int], str] = {}
        for name, part in self._parts.items():
            if name not in names:
                floats |= part.floats
        proto = onnx.ModelProto()
        proto.CopyFrom(self._bare)
        graph = proto.graph
        self._rewire(graph.node, floats)
        if counterpart:
            self._add_counterpart(graph, self._parts[counterpart])
        insert_behind(graph, self._lost)
        live = prune_nodes(graph, also)
        gone = {tensor.name for tensor in self._graph.initializer} - live
        inputs = [value for value in graph.input if value.name not in gone]  # old files list weights among them
        del graph.input[:]
        graph.input.extend(inputs)
        weights = (*self._graph.initializer, *self._restored.values(), *self._added.values())
        graph.initializer.extend(tensor for tensor in weights if tensor.name in live)
        return replace(self._model, proto=proto, sha256="")

    def output_pair(self, name: str) -> tuple[str, str]:
        """Return the output of a layer, companions included, and that of its float counterpart."""
        part = self._parts[name]
        behind = [number for number, place in part.floats if number != part.number and place != LAST]
        made = str(self._graph.node[max(behind)].output[0]) if behind else part.layer.output
        ends = [self._graph.node[number].output[0] for number, place in part.floats if place == LAST]
        return (ends[0] if ends and not behind else made), f"{made}{COUNTERPART}"

    def name_in_file(self, name: str) -> str:
        """Return the name of a tensor in the file; the inverse of `float_tensor`."""
        return self._file_names.get(name, name)

    def float_tensor(self, tensor: str) -> str:
        """Return the tensor of a float variant that a pair rounds."""
        return str(self._lost[tensor].output[0]) if tensor in self._lost else tensor

    def weights(self) -> Iterable[QuantizedWeight]:
        """Yield the quantized weights of all layers in graph order, each once for every node that reads it."""
        for part in self._parts.values():
            node = self._graph.node[part.number]
            for place in part.layer.weights:
                name = part.floats[part.number, place]
                tensor = self._added.get(name) or self._known.get(name)
                grid = self._grids[node.input[place]]
                stored = self._known.get(self._sources[node.input[place]])
                if tensor is None or stored is None or not grid.is_known or grid.type == BIAS:
                    continue
                values = weight_values(tensor, self._model)
                own = weight_values(stored, self._model)
                known_as = self._plain.weight(part.layer.node, place) if self._plain else ""
                yield QuantizedWeight(known_as or name, part.layer.node, values, grid.round_trip(own), grid)

    def makers(self) -> Mapping[str, str]:
        """Return tensor → name of the node that makes it."""
        nodes = ((made, self._wiring.nodes[number]) for made, number in self._wiring.makers.items())
        return {made: node_name(node) for made, node in nodes if not is_qdq(node)}

    def _find_lost_clips(self) -> Iterable[tuple[str, onnx.NodeProto]]:
        """Yield Relu and Clip of the float network that the file lacks because a pair clips to its range."""
        import onnx

        for tensor in dict.fromkeys(self._sources.values()):
            lost = self._plain.maker(tensor) if self._plain else None
            maker = self._wiring.maker(tensor)
            if lost is None or lost.op_type not in CLIPPING or maker is None or maker.op_type == lost.op_type:
                continue
            if (lost.op_type, maker.op_type) == ("Clip", "Min"):  # a Clip in two nodes, of which this is the second
                continue
            node = onnx.NodeProto()
            node.CopyFrom(lost)
            node.input[0], node.output[0] = tensor, unique_name(f"{tensor}{FLOAT}", self._taken)
            node.name = node.output[0]
            for place, name in enumerate(lost.input[1:], 1):
                if name and self._plain:
                    bound = self._plain.copy_of(name)
                    bound.name = node.input[place] = unique_name(f"{name}{FLOAT}", self._taken)
                    self._added[bound.name] = bound
            yield tensor, node

    def _rewire(self, nodes: Iterable[onnx.NodeProto], floats: Mapping[tuple[int, int], str]) -> None:
        for number, node in enumerate(nodes):
            for place in range(len(node.input)):
                if (number, place) in floats:
                    node.input[place] = floats[number, place]
            if (number, LAST) in floats:  # a DequantizeLinear whose result is an output of the network
                made = node.output[0]
                node.Clear()
                node.op_type, node.name = "Identity", f"{made}{FLOAT}"
                node.input.append(floats[number, LAST])
                node.output.append(made)

    def _add_counterpart(self, graph: onnx.GraphProto, part: LayerPart) -> None:
        """Add the float counterpart of a layer, companions included, and both results as outputs."""
        import onnx

        there = {value.name for value in graph.output}
        graph.output.extend(
            onnx.ValueInfoProto(name=name) for name in self.output_pair(part.layer.node) if name not in there
        )
        made: set[str] = set()
        for number in sorted({number for number, place in part.floats if place != LAST} | {part.number}):
            node = onnx.NodeProto()
            node.CopyFrom(self._graph.node[number])
            node.name = f"{node_name(node)}{COUNTERPART}"
            for place, name in enumerate(node.input):
                node.input[place] = part.floats.get((number, place), f"{name}{COUNTERPART}" if name in made else name)
            made.update(node.output)
            for place, name in enumerate(node.output):
                node.output[place] = f"{name}{COUNTERPART}" if name else ""
            graph.node.append(node)

    def _find_parts(self) -> Iterable[LayerPart]:
        """Yield the layers in graph order."""
        ends = self._ends()
        for number, node in enumerate(self._graph.node):
            if is_qdq(node):
                continue
            floats = {(number, k): self._sources[name] for k, name in enumerate(node.input) if name in self._sources}
            floats |= {(made, LAST): source for made, source, maker in ends if maker == number}
            if floats:
                yield self._part(number, node, floats)

    def _ends(self) -> list[tuple[int, str, int]]:
        """Return the network outputs behind a pair: number of the DequantizeLinear, tensor, and number of its maker."""
        found, makers = [], self._wiring.makers
        for value in self._graph.output:
            source = self._sources.get(value.name)
            if source is not None and source in makers:
                found.append((makers[value.name], source, makers[source]))
        return found

    def _part(self, number: int, node: onnx.NodeProto, floats: dict[tuple[int, int], str]) -> LayerPart:
        quantized = {place: name for (n, place), name in floats.items() if n == number}
        name = node_name(node)
        weights = tuple(place for place, source in quantized.items() if source in self._constants)
        matched_name = self._plain.match(node) if self._plain else None
        parameters = 0
        for place, read in enumerate(node.input):
            source = quantized.get(place, read)
            if source in self._known and DTYPES.get(self._known[source].data_type) in FLOATS:
                parameters += prod(self._known[source].dims)
        if matched_name is not None:
            name = matched_name
            floats |= self._changed_constants(number, node, floats)
            floats |= self._companions(number, node)
        read = [self.name_in_file(source) for source in quantized.values() if source not in self._constants]
        activations = tuple(dict.fromkeys(read))
        matched = matched_name is not None or self._plain is None
        grids = {self._grids[node.input[place]].type for place in quantized if place != LAST}
        kind = grids.pop() if len(grids) == 1 else ""
        layer = QuantizedLayer(name, node.op_type, activations, weights, node.output[0], parameters, matched, kind)
        return LayerPart(layer, number, floats)

    def _changed_constants(
        self, number: int, node: onnx.NodeProto, floats: Mapping[tuple[int, int], str]
    ) -> dict[tuple[int, int], str]:
        """Return the constants of a node in the float network that differ from those in the file."""
        assert self._plain is not None
        found = {}
        for place, read in enumerate(node.input):
            source = floats.get((number, place), read)
            if source not in self._known:
                continue
            tensor = self._plain.changed(node, place, self._known[source], self._model)
            if tensor is not None:
                tensor.name = unique_name(f"{tensor.name}{FLOAT}", self._taken)
                self._added[tensor.name] = tensor
                found[number, place] = tensor.name
        return found

    def _companions(self, number: int, layer: onnx.NodeProto) -> dict[tuple[int, int], str]:
        """Return the constants right behind a layer that quantization changed."""
        found: dict[tuple[int, int], str] = {}
        for other, node in enumerate(self._graph.node):
            behind = other != number and node.op_type in ("Add", "Mul", "Sub") and layer.output[0] in node.input
            if behind and not any(name in self._sources for name in node.input):
                found |= self._changed_constants(other, node, {})
        return found


def quantized_pairs(found: FoundPairs) -> FoundPairs:
    """Return the pairs with integer types and FP8 only; the others stay in every variant."""
    other = {p.quantized: f"its values are {p.grid.type}" for p in found.pairs if not QUANTIZED.fullmatch(p.grid.type)}
    pairs = tuple(pair for pair in found.pairs if pair.quantized not in other)
    return FoundPairs(pairs, found.stored, {**found.left, **other})


def float_sources(found: FoundPairs, restored: Mapping[str, str]) -> dict[str, str]:
    """Return result of a DequantizeLinear → the float tensor behind it, through chains of pairs."""
    sources = dict(restored)
    for pair in found.pairs:
        for name in pair.dequantized:
            sources[name] = sources.get(pair.tensor, pair.tensor)
    return sources
