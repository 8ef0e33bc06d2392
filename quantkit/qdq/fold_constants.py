"""Folding of operators whose result constants alone decide into initializers.

    w → Transpose → MatMul           w, transposed → MatMul
    float16 w → Cast → Conv          float32 w → Conv
    w → Identity → Conv              w → Conv
    v, g → ReduceL2, Div, Mul → Conv    g·v/|v| → Conv

Exporters leave folding to the runtime. As written, nothing could be quantized or repaired there, and a node between a
weight and its Q/DQ pair keeps TensorRT 8.6 from fusing the weight into its layer: ResNet-50 takes up to twice as long.
An initializer takes the name of the tensor; an operator that changes nothing leaves its input in its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from quantkit.graph.dead_nodes import names_read_by, remove_unread
from quantkit.graph.model import Model
from quantkit.graph.names import tensor_names, unique_name
from quantkit.graph.node_edits import rename_reads
from quantkit.graph.shape_inference import element_types, infer_types
from quantkit.qdq.decided_constants import DecidedConstants, FoldedConstants, find_decided, fold_decided
from quantkit.qdq.stored_weights import LARGEST

if TYPE_CHECKING:
    import onnx

    from quantkit.values import Array


def fold_constants(model: Model) -> onnx.ModelProto:
    """Return the network with such float tensors as initializers: the model's own proto, which is never edited, if it
    has none.

    What a caller may override (initializers that are inputs too) stays as it is, and so does what would make the model
    much larger, or too large for a file. ModelError if a weight is damaged.
    """
    decided = find_decided(model)
    names = foldable_tensors(model, decided)
    folded = fold_decided(decided, names)
    if not folded.names or model.proto.ByteSize() + sum(array.nbytes for array in folded.values.values()) > LARGEST:
        return model.proto
    return with_constants(model.proto, decided, folded)


def foldable_tensors(model: Model, decided: DecidedConstants) -> list[str]:
    """Return the decided tensors that other operators read: floats, what an Identity makes, and what DequantizeLinear
    reads."""
    if not decided.makers:
        return []
    graph = model.proto.graph
    outputs = set(model.outputs)
    chained = {id(node) for node in decided.makers.values()}
    inner = [node for node in graph.node if id(node) in chained and not outputs.intersection(node.output)]
    kept = {id(node) for node in inner}
    read = {name for node in graph.node if id(node) not in kept for name in names_read_by(node)}
    integers = {node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    types = element_types(infer_types(model.proto).graph)
    return [
        name
        for name, node in decided.makers.items()
        if name in read
        and (name in integers or types.get(name) in ("float32", "float16") or node.op_type == "Identity")
    ]


def with_constants(proto: onnx.ModelProto, decided: DecidedConstants, folded: FoldedConstants) -> onnx.ModelProto:
    """Return a copy of a network with decided tensors as constants, without what nothing reads any more."""
    copy = type(proto)()
    copy.CopyFrom(proto)
    graph = copy.graph
    taken = tensor_names(graph)
    spare = list(decided.chain(folded.names))
    outputs = {value.name for value in graph.output}
    named = {name: unique_name(f"{name}_constant", taken) if name in outputs else name for name in folded.values}
    renamed = {**{name: named.get(same, same) for name, same in folded.aliases.items()}, **named}
    for node in graph.node:
        rename_reads(node, lambda name: renamed.get(name, name))
        for k, name in enumerate(node.output):
            if named.get(name) == name:  # the initializer takes the name
                node.output[k] = unique_name(f"{name}_computed", taken)
                spare.append(node.output[k])
    annotations = [value for value in graph.value_info if value.name not in folded.names - outputs]
    del graph.value_info[:]
    graph.value_info.extend(annotations)
    for name, array in folded.values.items():
        graph.initializer.append(numpy_tensor(array, named[name]))
    remove_unread(graph, [name for name in spare if name not in named.values()], folded.aliases)
    return copy


def numpy_tensor(array: Array, name: str) -> onnx.TensorProto:
    """Return an array as a tensor; a scalar keeps that it has no dimensions."""
    from onnx import numpy_helper

    return numpy_helper.from_array(np.array(array, order="C"), name)
