"""Exported models without the traces of the exporter and of the machine that it ran on.

    left behind by exporters                        here
    stack traces, source lines, paths (PyTorch)     removed, with all other documentation and metadata
    s77, unk__46 as the first axis of an input      batch
    node_Conv_64, Conv2D__12, const_fold_opt__41    names of layers (quantkit.frameworks.readable_names)
    opsets that no node uses (tf2onnx)              removed

What the network computes, its weights, and the names of its inputs and outputs do not change.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from quantkit.frameworks.readable_names import rename_readably
from quantkit.graph.messages import graph_tensors, node_tensors
from quantkit.graph.model import Model
from quantkit.graph.operators import ONNX_DOMAINS
from quantkit.graph.subgraphs import all_graphs, all_nodes

if TYPE_CHECKING:
    import onnx

BATCH = "batch"


def clean_copy(model: Model, *, fixed_batch: int | None = None) -> onnx.ModelProto:
    """Return a copy without documentation and metadata. Its batch axis is `batch`, or has the size `fixed_batch`."""
    proto = type(model.proto)()
    proto.CopyFrom(model.proto)
    rename_readably(proto)
    name_batch(proto.graph, fixed_batch)
    strip_metadata(proto)
    used = {node.domain for node in all_nodes(proto.graph)}
    kept = [opset for opset in proto.opset_import if opset.domain in used or opset.domain in ONNX_DOMAINS]
    del proto.opset_import[:]
    proto.opset_import.extend(kept)
    proto.graph.name = "network"
    return proto


def strip_metadata(proto: onnx.ModelProto) -> None:
    """Remove documentation and metadata everywhere in a model, in place."""
    clear_annotations([proto])
    for graph in all_graphs(proto.graph):
        clear_annotations([graph, *graph.node, *graph.input, *graph.output, *graph.value_info])
        clear_annotations(attribute for node in graph.node for attribute in node.attribute)
        clear_annotations(graph_tensors(graph))
        clear_annotations(node_tensors(graph.node))
        del graph.quantization_annotation[:]


def clear_annotations(messages: Iterable[Any]) -> None:
    """Clear the fields that do not affect what is computed."""
    for message in messages:
        for name in ("doc_string", "metadata_props"):
            if name in message.DESCRIPTOR.fields_by_name:
                message.ClearField(name)


def name_batch(graph: onnx.GraphProto, fixed: int | None) -> None:
    """Call the first axis of inputs and outputs `batch` if it is dynamic, or give it a fixed size; in place."""
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
    """Return the first dimension of a tensor; None for scalars and unknown shapes."""
    dims = value.type.tensor_type.shape.dim
    return dims[0] if len(dims) else None
