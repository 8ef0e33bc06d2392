"""Readable, reproducible names: nodes are named after layers, tensors after the node that makes or reads them.

    exporter        node as exported                                   here
    torch.export    node_Conv_64, tensor getitem                       stem.0/Conv, stem.0/Conv_output_0
    tf2onnx         StatefulPartitionedCall/net/conv/Conv2D__12        net/conv/Conv2D
                    its weight, const_fold_opt__41                     net/conv/Conv2D_weight
    TorchScript     /stem/stem.0/Conv                                  the same

The exporter of torch.export writes the origin of a node into its metadata. tf2onnx numbers everything it makes, and
keeps one of several equal weights, in an order that changes from run to run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from quantkit.graph.operators import WEIGHTED
from quantkit.graph.subgraphs import all_graphs, all_nodes

if TYPE_CHECKING:
    import onnx

SCOPES = "pkg.torch.onnx.name_scopes"
"""Where torch.export's exporter writes the modules around a node, and the operator's name."""
QUOTED = re.compile(r"""'([^'\\]*)'|"([^"\\]*)\"""")
"""One text of the list of texts, written in Python, in that metadata."""
TF2ONNX = "tf2onnx"
ROLES = ("input", "weight", "bias")


def rename_readably(proto: onnx.ModelProto) -> None:
    """Rename nodes and tensors that have a better name, except for inputs and outputs of the network; in place."""
    graph = proto.graph
    weights = {weight.name for weight in graph.initializer}
    if proto.producer_name == TF2ONNX:
        wanted: list[str | None] = [tf2onnx_layer_name(node) for node in graph.node]
    else:
        wanted = [scoped_name(node, weights) for node in graph.node]
    names = make_unique(wanted)
    fixed = {value.name for value in (*graph.input, *graph.output)}
    renamed: dict[str, str] = {}
    for node, name in zip(graph.node, names, strict=True):
        if name is None:
            continue
        node.name = name
        renamed |= {tensor: f"{name}_output_{i}" for i, tensor in enumerate(node.output) if tensor}
        if proto.producer_name == TF2ONNX:
            for i, tensor in enumerate(node.input):
                if tensor in weights and tensor not in renamed:
                    renamed[tensor] = f"{name}_{ROLES[i] if node.op_type in WEIGHTED else f'input_{i}'}"
    taken = fixed | (weights - renamed.keys())
    rename_tensors(graph, {old: new for old, new in renamed.items() if old not in fixed and new not in taken})
    if proto.producer_name == TF2ONNX:
        sort_weights(graph)


def make_unique(names: Sequence[str | None]) -> list[str | None]:
    """Return the names without repetitions: the second `x` becomes `x_1`."""
    used: set[str] = set()
    made: list[str | None] = []
    for name in names:
        count, new = 0, name
        while new is not None and new in used:
            count += 1
            new = f"{name}_{count}"
        used |= {new} if new is not None else set()
        made.append(new)
    return made


def scoped_name(node: onnx.NodeProto, weights: set[str]) -> str | None:
    """Return module and operator, from the owner of the node's weight or else from the exporter's metadata.

    None if neither is known.
    """
    text = next((entry.value for entry in getattr(node, "metadata_props", ()) if entry.key == SCOPES), None)
    if text is None:
        return None
    scope = next((name.rpartition(".")[0] for name in node.input if name in weights and name.endswith(".weight")), "")
    if not scope:
        scopes = [one or other for one, other in QUOTED.findall(text)]
        scope = scopes[-2] if len(scopes) > 1 else ""
    return f"{scope}/{node.op_type}" if scope else node.op_type


def tf2onnx_layer_name(node: onnx.NodeProto) -> str:
    """Return tf2onnx's name without its numbers and the calls around it; of fused TFLite names, the last."""
    name = re.sub(r"__\d+", "", node.name).rpartition(";")[2].removesuffix("_prequant").removesuffix(":0")
    name = re.sub(r"^(StatefulPartitionedCall(_\d+)?/)+", "", name)
    inserted = re.search(r"__\d+$", node.name) and not name.endswith(node.op_type)
    return f"{name}/{node.op_type}" if inserted else name or node.op_type


def sort_weights(graph: onnx.GraphProto) -> None:
    """Sort initializers in the order in which nodes read them; in place."""
    order: dict[str, int] = {}
    for node in all_nodes(graph):
        for name in node.input:
            order.setdefault(name, len(order))
    weights = sorted(graph.initializer, key=lambda weight: order.get(weight.name, len(order)))
    copies = [copy_tensor(weight) for weight in weights]
    del graph.initializer[:]
    graph.initializer.extend(copies)


def copy_tensor(weight: onnx.TensorProto) -> onnx.TensorProto:
    """Return a copy that outlives the repeated field it comes from."""
    copy = type(weight)()
    copy.CopyFrom(weight)
    return copy


def rename_tensors(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename tensors, also where subgraphs read them; in place."""
    for part in all_graphs(graph):
        for value in (*part.input, *part.output, *part.value_info, *part.initializer):
            value.name = names.get(value.name, value.name)
        for node in part.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]
