"""Whole numbers at the ends of a network that was quantized once: away, so that it takes and gives real numbers.

    uint8 input → Cast → Sub zero point → Mul scale → network          float32 input → network
    network → QuantizeLinear → uint8 output                            network → float32 output

The first chain, or a DequantizeLinear in its place, is what tf2onnx makes of TFLite's quantized inputs. A real number
is what the whole number stood for: scale·(q − zero point).
"""

from __future__ import annotations

import onnx

from quantkit.graph.operators import DEQUANTIZING_CHAIN, DEQUANTIZING_ENDS
from quantkit.graph.readable_names import rename_tensors
from quantkit.graph.subgraphs import all_nodes

WHOLE = (onnx.TensorProto.UINT8, onnx.TensorProto.INT8, onnx.TensorProto.INT16)


def with_float_ends(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose inputs and outputs of whole numbers are float32, where the chains above stand at them."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    graph = copy.graph
    gone: list[int] = []
    for value in graph.input:
        if value.type.tensor_type.elem_type in WHOLE:
            chain = dequantizing_chain(graph, value.name)
            if chain:
                rename_tensors(graph, {graph.node[chain[-1]].output[0]: value.name, value.name: f"{value.name} whole"})
                value.name = value.name.removesuffix(" whole")
                value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
                gone += chain
    for value in graph.output:
        number, node = next(((i, n) for i, n in enumerate(graph.node) if value.name in n.output), (-1, None))
        if node is not None and node.op_type == "QuantizeLinear" and not read(graph, value.name):
            rename_tensors(graph, {node.input[0]: value.name, value.name: f"{value.name} whole"})
            value.name = value.name.removesuffix(" whole")
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
            gone.append(number)
    kept = [node for number, node in enumerate(graph.node) if number not in gone]
    del graph.node[:]
    graph.node.extend(kept)
    candidates = {name for number in gone for name in proto.graph.node[number].input}
    needed = {name for node in all_nodes(graph) for name in node.input}
    weights = [weight for weight in graph.initializer if weight.name in needed or weight.name not in candidates]
    del graph.initializer[:]
    graph.initializer.extend(weights)
    del graph.value_info[:]
    return copy


def read(graph: onnx.GraphProto, tensor: str) -> list[int]:
    """The nodes, by number, that read a tensor."""
    return [number for number, node in enumerate(graph.node) if tensor in node.input]


def dequantizing_chain(graph: onnx.GraphProto, tensor: str) -> list[int]:
    """The nodes that turn a whole-number input into real numbers; empty where it is read otherwise."""
    found: list[int] = []
    while True:
        readers = read(graph, tensor)
        if len(readers) != 1 or graph.node[readers[0]].op_type not in DEQUANTIZING_CHAIN:
            return []
        found.append(readers[0])
        node = graph.node[readers[0]]
        if node.op_type in DEQUANTIZING_ENDS:
            return found
        tensor = node.output[0]
