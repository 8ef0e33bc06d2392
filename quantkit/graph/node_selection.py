"""Selection of nodes by name, pattern or operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from quantkit.errors import UsageError
from quantkit.graph.model import Model, node_name
from quantkit.graph.names import undivided_name


def node_names(model: Model) -> dict[str, str]:
    """Return node name → operator for all nodes."""
    return {node_name(node): node.op_type for node in model.proto.graph.node}


def match_nodes(
    patterns: Sequence[str], operators: Mapping[str, str], file_names: Mapping[str, str] | None = None
) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return the nodes that names, patterns or operators match, and the patterns that match none.

    file_names: node → its name in the file, if that is another; such a node has both names. The name of a part stands
    for its node, where the network has that undivided (`layers --against` names the parts).
    """
    chosen: set[str] = set()
    idle = []
    also = file_names or {}
    for pattern in patterns:
        found = {
            n
            for n, op in operators.items()
            if pattern in (n, op, also.get(n)) or fnmatchcase(n, pattern) or fnmatchcase(also.get(n, n), pattern)
        }
        if not found and (whole := undivided_name(pattern)) in operators:
            found = {whole}
        chosen |= found
        if not found:
            idle.append(pattern)
    return frozenset(chosen), tuple(idle)


def select_nodes(patterns: Sequence[str], model: Model, option: str) -> frozenset[str]:
    """Return the nodes of a model that patterns match. UsageError if a pattern matches none."""
    found, idle = match_nodes(patterns, node_names(model), model.file_names)
    if idle:
        raise UsageError(
            f"{option} {', '.join(map(repr, idle))}: no node of the network has this name or operator",
            remedy="node names are in `quantkit inspect MODEL --json`; patterns look like '/head/*'",
        )
    return found
