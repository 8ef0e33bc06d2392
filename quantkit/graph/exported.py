"""A model as exporters leave it, and as it should lie on a disk: without what tells of the machine it was made on.

    left behind by exporters                        here
    stack traces, source lines, paths (PyTorch)     gone, with all other documentation and metadata
    s77, unk__46 as the first axis of an input      batch
    node_Conv_64, getitem (torch.export)            stem.0/Conv, stem.0/Conv_output_0: the module's own names
    operator sets that no node uses (tf2onnx)       gone
    local functions (torch.export)                  inlined

What the network computes, its weights, and the names of its inputs and outputs stay.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import onnx

from quantkit.graph.model import Model, subgraphs
from quantkit.graph.weights import graph_tensors, node_tensors

BATCH = "batch"
SCOPES = "pkg.torch.onnx.name_scopes"
"""Where torch.export's exporter writes the path of the module that a node comes from, and the operator's name."""
OUTPUT = "_output_{}"
"""As the TorchScript exporter names what a node makes."""


def plain(model: Model, *, fixed_batch: int | None = None) -> onnx.ModelProto:
    """A copy without documentation and metadata, its batch axis by name; `fixed_batch` makes a number of that axis."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    if proto.functions:
        proto = onnx.inliner.inline_local_functions(proto)
    rename_nodes(proto.graph)
    name_batch(proto.graph, fixed_batch)
    strip(proto)
    used = {node.domain for node in all_nodes(proto.graph)}
    kept = [opset for opset in proto.opset_import if opset.domain in used or opset.domain in ("", "ai.onnx")]
    del proto.opset_import[:]
    proto.opset_import.extend(kept)
    proto.graph.name = "network"
    return proto


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph and of those inside it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in subgraphs(attribute):
                yield from all_nodes(inner)


def all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and those inside it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in subgraphs(attribute):
                yield from all_graphs(inner)


def strip(proto: onnx.ModelProto) -> None:
    """Remove documentation and metadata, wherever they are; in place."""
    clear([proto])
    for graph in all_graphs(proto.graph):
        clear([graph, *graph.node, *graph.input, *graph.output, *graph.value_info])
        clear(attribute for node in graph.node for attribute in node.attribute)
        clear(graph_tensors(graph))
        clear(node_tensors(graph.node))
        del graph.quantization_annotation[:]


def clear(messages: Iterable[Any]) -> None:
    """Clear the fields that computing does not need."""
    for message in messages:
        for name in ("doc_string", "metadata_props"):
            if name in message.DESCRIPTOR.fields_by_name:
                message.ClearField(name)


def rename_nodes(graph: onnx.GraphProto) -> None:
    """Nodes, and what they make, by the module that they come from, where the exporter tells it; in place."""
    weights = {weight.name for weight in graph.initializer}
    seen: dict[str, int] = {}
    renamed: dict[str, str] = {}
    for node in graph.node:
        scope = scope_of(node, weights)
        if scope is None:
            continue
        name = f"{scope}/{node.op_type}" if scope else node.op_type
        seen[name] = count = seen.get(name, 0) + 1
        node.name = name if count == 1 else f"{name}_{count - 1}"
        renamed |= {tensor: node.name + OUTPUT.format(i) for i, tensor in enumerate(node.output) if tensor}
    taken = {value.name for value in (*graph.input, *graph.output)} | weights
    rename_tensors(graph, {old: new for old, new in renamed.items() if old not in taken and new not in taken})


def scope_of(node: onnx.NodeProto, weights: set[str]) -> str | None:
    """The module of a node: the owner of its weight, else what the exporter wrote. None where it wrote nothing."""
    text = next((entry.value for entry in getattr(node, "metadata_props", ()) if entry.key == SCOPES), None)
    if text is None:
        return None
    owner = next((name.rpartition(".")[0] for name in node.input if name in weights and name.endswith(".weight")), "")
    if owner:
        return owner
    try:
        scopes = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return None
    return str(scopes[-2]) if isinstance(scopes, list) and len(scopes) > 1 else ""


def rename_tensors(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Other names for tensors, also where graphs inside read them; in place."""
    if not names:
        return
    for part in all_graphs(graph):
        for value in (*part.input, *part.output, *part.value_info, *part.initializer):
            value.name = names.get(value.name, value.name)
        for node in part.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]


def name_batch(graph: onnx.GraphProto, fixed: int | None) -> None:
    """Call the first axis of inputs and outputs `batch` where it is dynamic, or give it a size; in place."""
    symbols = {dim.dim_param for value in graph.input if (dim := first_axis(value)) is not None and dim.dim_param}
    for value in (*graph.input, *graph.output):
        dim = first_axis(value)
        if dim is None:
            continue
        loose = not dim.HasField("dim_value") or dim.dim_value <= 0
        unnamed = dim.dim_param in symbols or not dim.dim_param or dim.dim_param.startswith("unk__")
        if fixed is not None and (loose or value in graph.input):
            dim.dim_value = fixed
        elif loose and unnamed:
            dim.dim_param = BATCH
    for value in graph.value_info:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in symbols:
                dim.dim_param = BATCH
    if fixed is not None:
        del graph.value_info[:]


def first_axis(value: onnx.ValueInfoProto) -> Any:
    """The first dimension of a tensor, None for scalars and unknown shapes."""
    dims = value.type.tensor_type.shape.dim
    return dims[0] if len(dims) else None
