"""Integer inputs and outputs of a network that was quantized before, replaced by float ones.

    uint8 input → Cast → Sub zero point → Mul scale → network          float32 input → network
    network → QuantizeLinear → uint8 output                            network → float32 output

The first chain, or a DequantizeLinear in its place, is what tf2onnx writes for the quantized inputs of TFLite. The
float value is what the integer q stood for: scale·(q − zero point).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantkit.frameworks.readable_names import rename_tensors
from quantkit.graph.index import Wiring, wire_graph
from quantkit.graph.operators import DEQUANTIZING_CHAIN, DEQUANTIZING_ENDS
from quantkit.graph.subgraphs import all_nodes

if TYPE_CHECKING:
    import onnx


def with_float_ends(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose integer inputs and outputs are float32, if the chains above follow or precede them."""
    copy = type(proto)()
    copy.CopyFrom(proto)
    graph = copy.graph
    gone: list[int] = []
    for value in graph.input:
        chain = dequantizing_chain(wire_graph(graph), value.name) if is_integer(value) else []
        if chain:
            make_float(graph, value, graph.node[chain[-1]].output[0])
            gone += chain
    for value in graph.output:
        wiring = wire_graph(graph)
        number = wiring.makers.get(value.name, -1)
        node = wiring.maker(value.name)
        if node is not None and node.op_type == "QuantizeLinear" and not wiring.readers.get(value.name):
            make_float(graph, value, node.input[0])
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


def is_integer(value: onnx.ValueInfoProto) -> bool:
    """Return whether an input has one of the types of quantized values."""
    from onnx import TensorProto

    return value.type.tensor_type.elem_type in (TensorProto.UINT8, TensorProto.INT8, TensorProto.INT16)


def make_float(graph: onnx.GraphProto, value: onnx.ValueInfoProto, inner: str) -> None:
    """Let an input or output take the place of the float tensor `inner`, in place; it keeps its name."""
    from onnx import TensorProto

    rename_tensors(graph, {inner: value.name, value.name: f"{value.name} quantized"})
    value.name = value.name.removesuffix(" quantized")
    value.type.tensor_type.elem_type = TensorProto.FLOAT


def dequantizing_chain(wiring: Wiring, tensor: str) -> list[int]:
    """Return the numbers of the nodes that turn an integer input into floats; empty if it is read in another way."""
    found: list[int] = []
    while True:
        readers = {reader.number for reader in wiring.readers.get(tensor, ())}
        node = wiring.nodes[min(readers)] if len(readers) == 1 else None
        if node is None or node.op_type not in DEQUANTIZING_CHAIN:
            return []
        found.append(min(readers))
        if node.op_type in DEQUANTIZING_ENDS:
            return found
        tensor = node.output[0]
