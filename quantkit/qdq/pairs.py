"""The Q/DQ nodes of a graph that somebody else wrote: which belong together, and what grid they put values on.

    pair      QuantizeLinear and the DequantizeLinear that read it, all on one grid: it can be taken out
    stored    DequantizeLinear of a weight that is kept as integers: it can be computed
    left      everything else, with the reason: integers that other operators read, two grids in one pair, subgraphs

The operators are those of ONNX's specification (QuantizeLinear and DequantizeLinear, versions 10 … 25): without a zero
point QuantizeLinear makes uint8, or what its `output_dtype` says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from quantkit.values import Array

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantkit.errors import ModelError
from quantkit.graph.model import DTYPES, Model
from quantkit.graph.subgraphs import captured_names, subgraphs
from quantkit.graph.weights import known_weights
from quantkit.qdq.reader import is_qdq

if TYPE_CHECKING:
    import onnx

    from quantkit.values import Array

UINT8 = 2
FEW_BYTES = 1 << 16
STORED = frozenset({"int8", "uint8", "int16", "uint16", "int32"})
"""Integer types of weights that become float again."""


@dataclass(frozen=True, slots=True)
class Grid:
    """What a Q or DQ node says of its integers: scale and zero point, None where the network computes them.

    type: of the integers, empty where a DequantizeLinear does not tell. axis: of a scale per channel. block: elements
    that share a scale along the axis; 0: all. names: of scale and zero point.
    """

    type: str
    scale: Array | None
    zero: Array | None
    axis: int
    block: int
    names: tuple[str, str]

    def same(self, other: Grid) -> bool:
        """Whether both put every value on the same integers."""
        several = self.scale is None or self.scale.size > 1
        if len({self.type, other.type} - {""}) > 1 or (several and self.channels != other.channels):
            return False
        values = ((self.scale, other.scale), (self.zero, other.zero))
        return all(a == b or are_equal(*two) for a, b, two in zip(self.names, other.names, values, strict=True))

    @property
    def channels(self) -> tuple[int, int]:
        """How several scales lie along the tensor."""
        return self.axis, self.block

    def scale_for_a_table(self) -> float | str:
        """The one float32 scale of a symmetric int8 tensor; a reason where a table cannot hold the grid.

        uint8 around 128 is int8 around 0: the same values with another name.
        """
        zero = {"int8": 0, "uint8": 128}.get(self.type)
        if zero is None:
            return f"its integers are {self.type or 'of a type that is not told'}"
        if self.scale is None or self.zero is None:
            return "its scale or zero point is computed by the network"
        if (self.zero != zero).any():
            return f"its zero point is {self.zero.flat[np.argmax(self.zero != zero)]} ({self.type})"
        if np.unique(self.scale).size != 1:
            return f"it has {self.scale.size} scales, one per channel"
        scale = float(np.float32(self.scale.flat[0]))
        return scale if 0.0 < scale < float("inf") else f"its scale is {scale}"


@dataclass(frozen=True, slots=True)
class QdqPair:
    """A tensor, the output of its QuantizeLinear, and the outputs of the DequantizeLinear behind it."""

    tensor: str
    quantized: str
    dequantized: tuple[str, ...]
    grid: Grid


@dataclass(frozen=True, slots=True)
class StoredWeight:
    """A weight that is kept as integers, and what its DequantizeLinear makes of it."""

    weight: onnx.TensorProto
    source: str
    dequantized: str
    grid: Grid


@dataclass(frozen=True, slots=True)
class FoundPairs:
    """All Q/DQ nodes of a model, in graph order. left: node → why it can not be taken out."""

    pairs: tuple[QdqPair, ...]
    stored: tuple[StoredWeight, ...]
    left: Mapping[str, str]


def are_equal(a: Array | None, b: Array | None) -> bool:
    """Whether both are known, of one type, and hold the same values; one value stands for many."""
    if a is None or b is None or a.dtype != b.dtype or (a.size != b.size and 1 not in (a.size, b.size)):
        return False
    return bool((a.reshape(-1) == b.reshape(-1)).all())


def find_pairs(model: Model) -> FoundPairs:
    """Sort the Q/DQ nodes of a model."""
    graph = model.proto.graph
    nodes = [node for node in graph.node if is_qdq(node)]
    weights = known_weights(graph)
    readers = readers_of(graph)
    grids = {node.output[0]: read_grid(node, weights, model) for node in nodes}
    pairs: list[QdqPair] = []
    stored: list[StoredWeight] = []
    left: dict[str, str] = {}
    done: set[str] = set()
    for node in nodes:
        made = node.output[0]
        if node.op_type == "QuantizeLinear":
            behind = readers[made]
            reason = unpaired_reason(node, behind, grids)
            if reason is None:
                ends = tuple(reader.output[0] for reader in behind if reader is not None)
                pairs.append(QdqPair(node.input[0], made, ends, grids[made]))
                done.update(ends)
        else:
            reason = None if made in done else not_stored_reason(node, weights, grids[made])
            if reason is None and made not in done:
                source = node.input[0]
                stored.append(StoredWeight(weights[source], source, made, grids[made]))
        if reason:
            left[node.name or made] = reason
    return FoundPairs(tuple(pairs), tuple(stored), {**left, **nested_qdq_nodes(model.proto)})


def readers_of(graph: onnx.GraphProto) -> Mapping[str, list[onnx.NodeProto | None]]:
    """Tensor → the nodes that read it, those inside which it is read too; None stands for the end of the graph."""
    readers: defaultdict[str, list[onnx.NodeProto | None]] = defaultdict(list)
    for node in graph.node:
        for name in {*node.input, *captured_names(node)}:
            readers[name].append(node)
    for value in graph.output:
        readers[value.name].append(None)
    return readers


def unpaired_reason(
    quantize: onnx.NodeProto, readers: Sequence[onnx.NodeProto | None], grids: Mapping[str, Grid]
) -> str | None:
    """Why a QuantizeLinear cannot go together with what reads it."""
    name = quantize.output[0]
    for node in readers:
        if node is None:
            return f"{name} is an output of the network"
        if not is_qdq(node) or node.op_type != "DequantizeLinear":
            return f"{node.op_type} {node.name or node.output[0]} reads its integers"
        if not grids[name].same(grids[node.output[0]]):
            both = (grids[name], grids[node.output[0]])
            known = all(values is not None for grid in both for values in (grid.scale, grid.zero))
            what = "another scale or zero point" if known else "a scale or zero point that the network computes"
            return f"{node.name or node.output[0]} has {what}"
        if int_attribute(node, "output_dtype"):
            return f"{node.name or node.output[0]} changes the type"
    return None


def not_stored_reason(node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto], grid: Grid) -> str | None:
    """Why a DequantizeLinear that is in no pair cannot be computed."""
    if node.input[0] not in weights:
        return f"{node.input[0]} is neither a weight nor made by a QuantizeLinear that can go"
    if grid.scale is None or grid.zero is None:
        return "its scale or zero point is computed by the network"
    if grid.type not in STORED:
        return f"its weights are {grid.type}"
    if grid.block and grid.scale.size > 1:
        return f"it has a scale for every {grid.block} elements"
    dims = weights[node.input[0]].dims
    if grid.scale.size > 1 and not (-len(dims) <= grid.axis < len(dims) and dims[grid.axis] == grid.scale.size):
        return f"its {grid.scale.size} scales do not fit its shape {list(dims)}"
    if grid.scale.dtype not in (np.float32, np.float16) or int_attribute(node, "output_dtype"):
        return f"its weights become {grid.scale.dtype}"
    return None


def nested_qdq_nodes(proto: onnx.ModelProto) -> dict[str, str]:
    """Q/DQ nodes inside subgraphs and local functions: node → where."""
    found: dict[str, str] = {}

    def look(nodes: Iterable[onnx.NodeProto], where: str) -> None:
        for node in nodes:
            if where and is_qdq(node):
                found[node.name or node.output[0]] = f"inside {where}"
            for held in node.attribute:
                for graph in subgraphs(held):
                    look(graph.node, where or f"{node.op_type} {node.name or node.output[0]}")

    look(proto.graph.node, "")
    for function in proto.functions:
        look(function.node, f"function {function.name}")
    return found


def read_grid(node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto], model: Model) -> Grid:
    """The grid of a Q or DQ node. ModelError where it has none."""
    from onnx import numpy_helper

    if len(node.input) < 2 or not node.output:
        raise ModelError(f"{model.path}: {node.op_type} {node.name!r} has no scale", remedy="export the model again")
    quantizes = node.op_type == "QuantizeLinear"
    names = (node.input[1], node.input[2] if len(node.input) > 2 else "")
    scale, zero = (
        numpy_helper.to_array(weights[name], str(model.folder)) if name in weights else None for name in names
    )
    telling = [name for name in (names[1], "" if quantizes else node.input[0]) if name in weights]
    kind = int_attribute(node, "output_dtype") if quantizes else 0
    kind = kind or (weights[telling[0]].data_type if telling else UINT8 if quantizes and not names[1] else 0)
    if not names[1]:
        zero = np.zeros(())
    zero = None if zero is None else zero.astype(np.int64)
    return Grid(type_name(kind), scale, zero, int_attribute(node, "axis", 1), int_attribute(node, "block_size"), names)


def type_name(kind: int) -> str:
    """An ONNX element type in words: `int8`, `float8e4m3fn`."""
    import onnx

    return DTYPES.get(kind) or (str(onnx.TensorProto.DataType.Name(kind)).lower() if kind else "")


def int_attribute(node: onnx.NodeProto, name: str, default: int = 0) -> int:
    """An integer attribute of a node."""
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def integer_limits(kind: str) -> tuple[int, int]:
    """The least and the largest integer of a type."""
    bits = int("".join(c for c in kind if c.isdigit()) or 8)
    return (0, 2**bits - 1) if kind.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def round_to_grid(values: Array, grid: Grid) -> Array:
    """What Q and DQ make of values: rounded half to even, cut at the ends of the integers."""
    assert grid.scale is not None
    assert grid.zero is not None
    shape = [1] * values.ndim
    if grid.scale.size > 1:
        shape[grid.axis] = -1
    scale, zero = grid.scale.astype(np.float32).reshape(shape), np.broadcast_to(grid.zero, grid.scale.shape)
    offset = zero.astype(np.float32).reshape(shape)
    low, high = integer_limits(grid.type)
    codes = np.clip(np.rint(values.astype(np.float32, copy=False) / scale) + offset, low, high)
    result: Array = (codes - offset) * scale
    return result


def has_known_scales(grid: Grid) -> bool:
    """Whether the file says scale and zero point, one for the tensor or one for each channel."""
    return grid.scale is not None and grid.zero is not None and not (grid.block and grid.scale.size > 1)
