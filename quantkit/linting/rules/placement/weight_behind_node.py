"""weight-behind-node: operators between a constant and the Q/DQ pair or layer that reads it, also in float networks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from quantkit.graph.model import node_name
from quantkit.graph.operators import EXACT_FOLDING, WEIGHTED
from quantkit.linting.finding import Defect
from quantkit.linting.graph_edit import GraphEdit
from quantkit.linting.rule import LintRule
from quantkit.qdq.decided_constants import DecidedConstants, find_decided, fold_decided
from quantkit.qdq.reader import QdqGraph, is_qdq

if TYPE_CHECKING:
    import onnx


def find_weights_behind_nodes(qdq: QdqGraph) -> Iterator[Defect]:
    """Yield operators that make a constant for Q/DQ nodes or weighted operators, which an initializer could be."""
    decided = find_decided(qdq.model)
    names = constants_behind_nodes(qdq, decided)
    folded = fold_decided(decided, names).names if names else set()
    for name in names:
        if name in folded:
            node = decided.makers[name]
            reader = next(node for _, node in qdq.uses(name) if name in weights_read_by(node))
            integer = qdq.dequantizes(reader.output[0]) and reader.input[0] == name
            harm = "is refused by TensorRT-RTX" if integer else "keeps TensorRT 8.6 from fusing it"
            yield Defect(
                node_name(node),
                f"{node.op_type} between a constant and {reader.op_type} {node_name(reader)!r} {harm}",
                "store what it makes as an initializer",
                fixable=is_exact(decided, name),
                severity="error" if integer else None,
            )


def constants_behind_nodes(qdq: QdqGraph, decided: DecidedConstants) -> list[str]:
    """Return the tensors that operators make of constants alone and that Q/DQ nodes or weighted operators read."""
    read = {name for node in qdq.nodes for name in weights_read_by(node)}
    return [name for name in decided.makers if name in read]


def weights_read_by(node: onnx.NodeProto) -> list[str]:
    """Return what a Q/DQ node quantizes or dequantizes (scales may be computed), and what a weighted operator reads."""
    return list(node.input if node.op_type in WEIGHTED else node.input[:1] if is_qdq(node) else ())


def is_exact(decided: DecidedConstants, name: str) -> bool:
    """Return whether a tensor has the same bits wherever it is computed."""
    return all(decided.makers[each].op_type in EXACT_FOLDING for each in decided.chain([name]) & decided.makers.keys())


def store_constants(edit: GraphEdit) -> None:
    """Store what such operators make as initializers."""
    decided = find_decided(edit.qdq.model)
    names = constants_behind_nodes(edit.qdq, decided)
    edit.fold(decided, fold_decided(decided, [name for name in names if is_exact(decided, name)]))


RULE = LintRule(
    "weight-behind-node",
    "slow",
    "an Identity, Transpose, Cast … between a weight and its pair or layer, in a float network too: TensorRT 8.6 does "
    "not fuse it; an error for INT8 weights before DequantizeLinear, which TensorRT-RTX refuses there",
    find_weights_behind_nodes,
    store_constants,
    "an initializer, where its bits do not depend on who computes it",
)
