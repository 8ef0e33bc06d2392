"""The float network that a Q/DQ network was made from: its operators and constants, found by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from quantkit.graph.model import Model, node_name
from quantkit.graph.weights import stored_tensors, weight_values

if TYPE_CHECKING:
    import onnx


class FloatCounterpart:
    """The float network of a Q/DQ network. Nodes go by their name, or by that of their first output."""

    def __init__(self, plain: Model) -> None:
        self._model = plain
        self._weights = stored_tensors(plain.proto.graph)
        self._by_name = {node.name: node for node in plain.proto.graph.node if node.name}
        self._by_output = {node.output[0]: node for node in plain.proto.graph.node if node.output}

    def node(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """Return the float counterpart of a node."""
        found = self._by_name.get(node.name) or self._by_output.get(node.output[0])
        return found if found is not None and found.op_type == node.op_type else None

    def maker(self, tensor: str) -> onnx.NodeProto | None:
        """Return the node that makes a tensor."""
        return self._by_output.get(tensor)

    def copy_of(self, name: str) -> onnx.TensorProto:
        """Return a copy of a constant."""
        from onnx import numpy_helper

        return numpy_helper.from_array(weight_values(self._weights[name], self._model))

    def match(self, node: onnx.NodeProto) -> str | None:
        """Return the name of a node in the float network; None if it has no counterpart."""
        found = self.node(node)
        return None if found is None else node_name(found)

    def weight(self, name: str, place: int) -> str:
        """Return the name of input `place` of a node in the float network; empty if there is none."""
        node = self._by_name.get(name) or self._by_output.get(name)
        return str(node.input[place]) if node is not None and place < len(node.input) else ""

    def changed(self, node: onnx.NodeProto, place: int, own: onnx.TensorProto, model: Model) -> onnx.TensorProto | None:
        """Return a copy of the constant that the float network reads there; None if it is equal or of another shape."""
        from onnx import numpy_helper

        found = self.node(node)
        name = found.input[place] if found is not None and place < len(found.input) else ""
        tensor = self._weights.get(name)
        if tensor is None or list(tensor.dims) != list(own.dims) or tensor.data_type != own.data_type:
            return None
        values = weight_values(tensor, self._model)
        if np.array_equal(values, weight_values(own, model)):
            return None
        return numpy_helper.from_array(np.ascontiguousarray(values), name)
