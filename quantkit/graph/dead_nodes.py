"""Removal of what nothing reads any more: scales, zero points, integers of weights, and the operators behind them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from quantkit.graph.dependencies import live_tensors
from quantkit.graph.index import wire_graph
from quantkit.graph.subgraphs import captured_names

if TYPE_CHECKING:
    import onnx


def remove_unread(graph: onnx.GraphProto, spare: Iterable[str], gone: Collection[str]) -> None:
    """Remove the tensors in `spare` that nothing reads, and then what only they needed.

    gone: names that nothing makes any more, whose annotations are removed as well. Everything else stays, including
    what was unread before.
    """
    wiring = wire_graph(graph)
    reads = wiring.read_counts()
    weights = {tensor.name for tensor in graph.initializer}
    waiting, unread = list(spare), set()
    while waiting:
        name = waiting.pop()
        node = wiring.maker(name)
        if reads[name] or name in unread or (node is None and name not in weights):
            continue
        if node is None:
            unread.add(name)
        elif not any(reads[output] for output in node.output):
            unread.update(output for output in node.output if output)
            reads.subtract(names_read_by(node))
            waiting += node.input
    kept_nodes = [node for node in graph.node if not unread.intersection(node.output)]
    kept_weights = [tensor for tensor in graph.initializer if tensor.name not in unread]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept_nodes)
    graph.initializer.extend(kept_weights)
    made = {name for node in kept_nodes for name in node.output} | {tensor.name for tensor in kept_weights}
    remove_stale_entries(graph, (set(gone) | unread) - made, unread)


def names_read_by(node: onnx.NodeProto) -> list[str]:
    """Return the names that a node and its subgraphs read."""
    return [name for name in (*node.input, *captured_names(node)) if name]


def remove_stale_entries(graph: onnx.GraphProto, names: set[str], weights: set[str]) -> None:
    """Remove the annotations of tensors that are gone, and weights that are gone from the list of inputs."""
    for entries, key, lost in (
        (graph.value_info, "name", names),
        (graph.input, "name", weights),
        (graph.quantization_annotation, "tensor_name", names),
    ):
        kept = [entry for entry in entries if getattr(entry, key) not in lost]
        if len(kept) < len(entries):
            del entries[:]
            entries.extend(kept)


def prune_nodes(graph: onnx.GraphProto, also: Iterable[str] = ()) -> set[str]:
    """Remove the nodes that neither an output nor the tensors `also` need; return the names that are needed."""
    live = live_tensors(graph) | set(also)
    nodes = [node for node in graph.node if any(name in live for name in node.output)]
    made = {name for node in nodes for name in node.output}
    annotations = [value for value in graph.value_info if value.name in made]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.value_info.extend(annotations)
    return live
