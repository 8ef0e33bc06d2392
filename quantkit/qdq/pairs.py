"""The Q/DQ nodes of a graph of any origin, sorted: which belong together, and on which grid they put values.

    pair      QuantizeLinear and the DequantizeLinear that read it, all on one grid: they can be removed
    stored    DequantizeLinear of a weight that is stored as integers: it can be computed
    left      everything else, with the reason: integers that other operators read, two grids in one pair, subgraphs

The operators are those of ONNX's specification (QuantizeLinear and DequantizeLinear, versions 10 … 25): without a zero
point QuantizeLinear makes uint8, or the type of its `output_dtype`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from quantkit.errors import ModelError
from quantkit.graph.model import Model, node_name
from quantkit.graph.operators import QDQ_DOMAINS
from quantkit.graph.subgraphs import subgraphs
from quantkit.qdq.grid import Grid, read_grid
from quantkit.qdq.reader import QdqGraph, QdqNode, is_qdq, read_qdq
from quantkit.values import QuantizedType

if TYPE_CHECKING:
    import onnx

STORED = frozenset({"int8", "uint8", "int16", "uint16", "int32", QuantizedType.FP8.stored})
"""Types of stored weights that can be restored to float."""


@dataclass(frozen=True, slots=True)
class QdqPair:
    """A tensor, the output of its QuantizeLinear, and the outputs of the DequantizeLinear behind it."""

    tensor: str
    quantized: str
    dequantized: tuple[str, ...]
    grid: Grid


@dataclass(frozen=True, slots=True)
class StoredWeight:
    """A weight that is stored as integers, and the result of its DequantizeLinear."""

    weight: onnx.TensorProto
    source: str
    dequantized: str
    grid: Grid


@dataclass(frozen=True, slots=True)
class FoundPairs:
    """All Q/DQ nodes of a model, in graph order. left: node → why it cannot be removed."""

    pairs: tuple[QdqPair, ...]
    stored: tuple[StoredWeight, ...]
    left: Mapping[str, str]


def find_pairs(model: Model) -> FoundPairs:
    """Sort the Q/DQ nodes of a model. ModelError if one of them has no scale."""
    for node in model.proto.graph.node:
        if is_qdq(node) and (len(node.input) < 2 or not node.output):
            raise ModelError(
                f"{model.path}: {node.op_type} {node.name!r} has no scale", remedy="export the model again"
            )
    graph = read_qdq(model, QDQ_DOMAINS)
    grids = {name: read_grid(node, graph) for name, node in graph.qdq_nodes.items()}
    pairs: list[QdqPair] = []
    stored: list[StoredWeight] = []
    left: dict[str, str] = {}
    done: set[str] = set()
    for made, node in graph.qdq_nodes.items():
        if node.quantizes:
            reason = unpaired_reason(node, graph, grids)
            if reason is None:
                ends = tuple(reader.output[0] for reader in graph.consumers(made))
                pairs.append(QdqPair(node.data, made, ends, grids[made]))
                done.update(ends)
        else:
            reason = None if made in done else not_stored_reason(node, graph, grids[made])
            if reason is None and made not in done:
                stored.append(StoredWeight(graph.weights[node.data], node.data, made, grids[made]))
        if reason:
            left[node.name] = reason
    return FoundPairs(tuple(pairs), tuple(stored), {**left, **nested_qdq_nodes(model.proto)})


def unpaired_reason(quantize: QdqNode, graph: QdqGraph, grids: Mapping[str, Grid]) -> str | None:
    """Return why a QuantizeLinear cannot be removed together with what reads it; None if it can."""
    grid = grids[quantize.result]
    for reader in graph.consumers(quantize.result):
        node = graph.qdq_nodes.get(reader.output[0])
        if node is None or node.quantizes:
            return f"{reader.op_type} {node_name(reader)} reads its integers"
        other = grids[node.result]
        if not grid.is_same(other):
            known = all(values is not None for g in (grid, other) for values in (g.scale, g.zero))
            what = "another scale or zero point" if known else "a scale or zero point that the network computes"
            return f"{node.name} has {what}"
        if node.output_type:
            return f"{node.name} changes the type"
    return f"{quantize.result} is an output of the network" if quantize.result in graph.outputs else None


def not_stored_reason(node: QdqNode, graph: QdqGraph, grid: Grid) -> str | None:
    """Return why a DequantizeLinear that is in no pair cannot be computed; None if it can."""
    if node.data not in graph.weights:
        return f"{node.data} is neither a weight nor made by a QuantizeLinear that can be removed"
    if grid.scale is None or grid.zero is None:
        return "its scale or zero point is computed by the network"
    if grid.type not in STORED:
        return f"its weights are {grid.type}"
    if grid.block and grid.scale.size > 1:
        return f"it has a scale for every {grid.block} elements"
    dims = graph.weights[node.data].dims
    if grid.scale.size > 1 and not (-len(dims) <= grid.axis < len(dims) and dims[grid.axis] == grid.scale.size):
        return f"its {grid.scale.size} scales do not fit its shape {list(dims)}"
    if grid.scale.dtype not in (np.float32, np.float16) or node.output_type:
        return f"its weights become {grid.scale.dtype}"
    return None


def nested_qdq_nodes(proto: onnx.ModelProto) -> dict[str, str]:
    """Return the Q/DQ nodes inside subgraphs and local functions, each with the place where it lies."""
    found: dict[str, str] = {}

    def look(nodes: Iterable[onnx.NodeProto], where: str) -> None:
        for node in nodes:
            if where and is_qdq(node):
                found[node_name(node)] = f"inside {where}"
            for attribute in node.attribute:
                for graph in subgraphs(attribute):
                    look(graph.node, where or f"{node.op_type} {node_name(node)}")

    look(proto.graph.node, "")
    for function in proto.functions:
        look(function.node, f"function {function.name}")
    return found
