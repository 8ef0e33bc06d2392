"""Removal of Q/DQ pairs: from a Q/DQ network back to the float network and the scales of its activations.

    x → Q → DQ → Conv        Conv reads x; the scale of Q belongs to x
    w → Q → DQ → Conv        Conv reads w
    int8 w → DQ → Conv       Conv reads the float weight (w − zero point)·scale
    Conv → Q → DQ → output   Conv makes the output itself
    Conv → Q(−128) → DQ      a Relu behind Conv, which the zero point stood for (`implied_relu`)

It is the inverse of `insert_qdq`: order of nodes and initializers, names and metadata stay, so that a network whose
weights stayed float is restored exactly. A tensor whose grid no calibration table can hold loses its pair too, and
gets no scale.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from quantkit.graph.dead_nodes import remove_unread
from quantkit.graph.dependencies import constant_tensors
from quantkit.graph.model import Model
from quantkit.graph.node_edits import rename_reads
from quantkit.paths import beside
from quantkit.qdq.fold_constants import fold_constants
from quantkit.qdq.grid import Grid
from quantkit.qdq.implied_relu import restore_relus
from quantkit.qdq.pairs import FoundPairs, find_pairs
from quantkit.qdq.stored_weights import RestoredWeights, restore_weights

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, slots=True)
class LostGrid:
    """The grid that a weight had. stored: whether the file held only its integers."""

    grid: Grid
    stored: bool


@dataclass(frozen=True, slots=True)
class StrippedNetwork:
    """A network without Q/DQ pairs.

    scales: activation → scale, the float32 of the file. weights: float weight → the grids that it had.
    unscaled: activations whose pair was removed but whose grid does not fit a table, with the reason.
    left: Q/DQ nodes that remain, with the reason. clipped: tensors of ReLUs that a pair stood for, now nodes again.
    """

    proto: onnx.ModelProto
    scales: Mapping[str, float]
    weights: Mapping[str, tuple[LostGrid, ...]]
    unscaled: Mapping[str, str]
    left: Mapping[str, str]
    clipped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Renaming:
    """The names of tensors in the float network.

    removed: outputs of removed nodes. sources: their results → the tensor to read instead. ends: tensors that take the
    name of a network output. aliases: network outputs that need a copy of their tensor.
    """

    removed: frozenset[str]
    sources: Mapping[str, str]
    ends: Mapping[str, str]
    aliases: frozenset[str]

    def __call__(self, name: str) -> str:
        """Return the new name of a tensor."""
        source = self.sources.get(name, name)
        return self.ends.get(source, source)


def remove_qdq(model: Model) -> StrippedNetwork:
    """Remove the Q/DQ pairs from a copy of a model. External float weights stay where they are.

    What constants alone decide is a weight (`fold_constants`). Weights that were stored as integers become float32
    (float16, if their scale is) inside the model. ModelError if these do not fit into a file, or the file is damaged.
    """
    import onnx

    model = replace(model, proto=fold_constants(model))
    model, clipped = restore_relus(model, find_pairs(model))
    found = find_pairs(model)
    restored = restore_weights(model, found.stored)
    rename = plan_renaming(model.proto.graph, found, restored)
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    spare = [name for node in proto.graph.node if rename.removed.intersection(node.output) for name in node.input]
    nodes = list(rewire_nodes(proto.graph.node, rename))
    weights = list(merge_restored(proto.graph.initializer, restored))
    del proto.graph.node[:], proto.graph.initializer[:]
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend(weights)
    remove_unread(proto.graph, spare, rename.removed | rename.ends.keys())
    scales, unscaled = activation_scales(model, found, rename)
    return StrippedNetwork(proto, scales, lost_grids(model, found, restored, rename), unscaled, found.left, clipped)


def plan_renaming(graph: onnx.GraphProto, found: FoundPairs, restored: RestoredWeights) -> Renaming:
    """Return the names of the tensors of a graph without its pairs."""
    sources = {name: weight.name for name, weight in restored.weights.items()}
    behind = {name: pair.tensor for pair in found.pairs for name in pair.dequantized}
    for name, tensor in behind.items():  # in graph order, so that a pair behind a pair finds where that one begins
        sources[name] = sources.get(tensor, tensor)
    removed = {*sources, *(pair.quantized for pair in found.pairs)}
    outputs = {value.name for value in graph.output}
    made = {name for node in graph.node for name in node.output} - removed - outputs
    ends: dict[str, str] = {}
    for value in graph.output:
        if value.name in behind and sources[value.name] in made - ends.keys():
            ends[sources[value.name]] = value.name
    aliases = outputs & behind.keys() - set(ends.values())
    return Renaming(frozenset(removed), sources, ends, frozenset(aliases))


def rewire_nodes(nodes: Iterable[onnx.NodeProto], rename: Renaming) -> Iterable[onnx.NodeProto]:
    """Yield the nodes that stay, renamed in place."""
    from onnx import helper

    for node in nodes:
        made = node.output[0] if node.output else ""
        if made in rename.aliases:
            yield helper.make_node("Identity", [rename(made)], [made], node.name)
        elif made not in rename.removed or not made:
            rename_reads(node, rename)
            for k, name in enumerate(node.output):
                node.output[k] = rename(name)
            yield node


def merge_restored(weights: Iterable[onnx.TensorProto], restored: RestoredWeights) -> Iterable[onnx.TensorProto]:
    """Yield the weights, with float ones in the place of their integers; those of Constant nodes come last."""
    waiting = {source: list(made) for source, made in restored.by_source.items()}
    for weight in weights:
        yield from waiting.pop(weight.name, [])
        yield weight
    for made in waiting.values():
        yield from made


def activation_scales(model: Model, found: FoundPairs, rename: Renaming) -> tuple[dict[str, float], dict[str, str]]:
    """Return activation → scale, and activation → why it has none."""
    constant = constant_tensors(model.proto.graph)
    seen: dict[str, list[float | str]] = {}
    for pair in found.pairs:
        if pair.tensor not in constant:
            seen.setdefault(rename(pair.tensor), []).append(pair.grid.scale_for_a_table())
    scales: dict[str, float] = {}
    unscaled: dict[str, str] = {}
    for tensor, found_scales in seen.items():
        numbers = sorted({scale for scale in found_scales if isinstance(scale, float)})
        reasons = [reason for reason in found_scales if isinstance(reason, str)]
        if len(numbers) > 1:
            reasons.append(f"it has several scales: {', '.join(f'{scale:g}' for scale in numbers)}")
        if reasons:
            unscaled[tensor] = reasons[0]
        else:
            scales[tensor] = numbers[0]
    return scales, unscaled


def lost_grids(
    model: Model, found: FoundPairs, restored: RestoredWeights, rename: Renaming
) -> dict[str, tuple[LostGrid, ...]]:
    """Return float weight → the grids that it had, in graph order."""
    constant = constant_tensors(model.proto.graph)
    lost: dict[str, list[LostGrid]] = {}
    for item in found.stored:
        lost.setdefault(restored.weights[item.dequantized].name, []).append(LostGrid(item.grid, True))
    for pair in found.pairs:
        if pair.tensor in constant:
            lost.setdefault(rename(pair.tensor), []).append(LostGrid(pair.grid, False))
    return {name: tuple(grids) for name, grids in lost.items()}


def describe_way_back(model: Model) -> str:
    """Return how to get from a Q/DQ model to its float network, as a clause of a remedy."""
    left = find_pairs(replace(model, proto=fold_constants(model))).left
    if not left and not model.files:
        return "quantkit.from_qdq(model, output) recovers it"
    if not left:
        table = beside(model.path, f"{model.path.stem}.calib")
        return f"this recovers it: quantkit table from-qdq {model.path} --output {table}"
    name, reason = next(iter(left.items()))
    return f"it cannot be recovered from this file, because Q/DQ node {name!r} cannot be removed: {reason}"
