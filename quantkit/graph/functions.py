"""Local functions, whose nodes are put in the place of their calls, so that every verb sees every node.

PyTorch's exporter and onnxscript write blocks as functions. ONNX's inliner makes the names of their nodes and tensors
unique by the number of the call: `c` of the second call becomes `c__2`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from quantkit.errors import ModelError, first_line
from quantkit.graph.messages import restore_placeholders, with_placeholders
from quantkit.graph.operators import ONNX_DOMAINS
from quantkit.graph.subgraphs import all_nodes, subgraphs

if TYPE_CHECKING:
    import onnx

MOST_NODES = 200_000
"""Nodes that functions may expand to; the largest public networks have 50,000."""
MOST_BYTES = 1 << 30
MOST_LEVELS = 100
"""Levels of functions that call functions; ONNX's inliner refuses more."""
REMEDY = "export the model without local functions"

Key = tuple[str, str, str]


def inline_functions(proto: onnx.ModelProto, where: str) -> onnx.ModelProto:
    """Return a model with its local functions inlined; the same model if it has none.

    A function whose opset computes something else than the network's stays. ModelError if functions call themselves,
    or expand to a graph that is too large.
    """
    if not proto.functions:
        return proto
    from onnx import checker, inliner

    refuse_explosion(proto, where)
    light, heavy = with_placeholders(proto)
    adopt_opset(light)
    own = {function.domain for function in proto.functions}
    try:
        result: onnx.ModelProto = inliner.inline_local_functions(light)
    except (RuntimeError, ValueError, checker.ValidationError) as error:
        reason = first_line(error).rpartition("failed: ")[2]
        raise ModelError(f"{where}: its local functions cannot be inlined: {reason}", remedy=REMEDY) from None
    restore_placeholders(result.graph.node, heavy)
    for function in result.functions:
        restore_placeholders(function.node, heavy)
    del result.graph.initializer[:]
    result.graph.initializer.extend(proto.graph.initializer)
    used = {node.domain for node in all_nodes(result.graph)} | {function.domain for function in result.functions}
    kept = [opset for opset in result.opset_import if opset.domain in used or opset.domain not in own]
    del result.opset_import[:]
    result.opset_import.extend(kept)
    return result


def function_key(thing: onnx.FunctionProto | onnx.NodeProto) -> Key:
    """Return the key by which a call finds its function."""
    name = thing.op_type if hasattr(thing, "op_type") else thing.name
    domain = "" if thing.domain in ONNX_DOMAINS else thing.domain
    return domain, name, getattr(thing, "overload", "")


def nodes_within(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield nodes, and the nodes of their subgraphs."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for inner in subgraphs(attribute):
                yield from all_nodes(inner)


def refuse_explosion(proto: onnx.ModelProto, where: str) -> None:
    """Raise ModelError if local functions call themselves, or expand to more than a network can be."""
    functions = {function_key(function): function for function in proto.functions}
    calls = {key: count_calls(function.node, functions) for key, function in functions.items()}
    try:
        order = list(TopologicalSorter(calls).static_order())
    except CycleError as error:
        name = error.args[1][0][1]
        raise ModelError(f"{where}: the local function {name!r} calls itself", remedy=REMEDY) from None
    nodes: dict[Key, int] = {}
    sizes: dict[Key, int] = {}
    levels: dict[Key, int] = {}
    for key in order:
        counts, body = calls[key], functions[key].node
        nodes[key] = expanded(sum(1 for _ in nodes_within(body)) - counts.total(), counts, nodes)
        sizes[key] = expanded(sum(node.ByteSize() for node in body), counts, sizes)
        levels[key] = 1 + max((levels[other] for other in counts), default=0)
    counts = count_calls(proto.graph.node, functions)
    total = sum(times * nodes[key] for key, times in counts.items())
    if total > MOST_NODES or sum(times * sizes[key] for key, times in counts.items()) > MOST_BYTES:
        raise ModelError(f"{where}: its local functions expand to {total:,} nodes", remedy=REMEDY)
    if max((levels[key] for key in counts), default=0) > MOST_LEVELS:
        raise ModelError(f"{where}: its local functions are nested more than {MOST_LEVELS} deep", remedy=REMEDY)


def count_calls(nodes: Iterable[onnx.NodeProto], functions: Mapping[Key, onnx.FunctionProto]) -> Counter[Key]:
    """Count how often nodes, and those of their subgraphs, call each function."""
    return Counter(key for node in nodes_within(nodes) if (key := function_key(node)) in functions)


def expanded(own: int, calls: Mapping[Key, int], known: Mapping[Key, int]) -> int:
    """Return a function's own amount and that of all functions that it calls."""
    return own + sum(times * known[key] for key, times in calls.items())


def adopt_opset(proto: onnx.ModelProto) -> None:
    """Give functions the opset of the network where all their operators are the same in both; in place.

    ONNX's inliner leaves functions of another opset alone.
    """
    versions = {"" if o.domain in ONNX_DOMAINS else o.domain: o.version for o in proto.opset_import}
    for function in proto.functions:
        for opset in function.opset_import:
            domain = "" if opset.domain in ONNX_DOMAINS else opset.domain
            version = versions.get(domain, opset.version)
            if version != opset.version and (domain or same_operators(function.node, opset.version, version)):
                opset.version = version


def same_operators(nodes: Iterable[onnx.NodeProto], version: int, other: int) -> bool:
    """Return whether every ONNX operator among nodes is the same in two opsets."""
    from onnx import defs

    kinds = {node.op_type for node in nodes_within(nodes) if node.domain in ONNX_DOMAINS}
    try:
        return all(
            defs.get_schema(kind, version).since_version == defs.get_schema(kind, other).since_version for kind in kinds
        )
    except defs.SchemaError:
        return False
