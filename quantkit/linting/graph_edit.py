"""Changes to a copy of a Q/DQ network, gathered first and made at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from quantkit.graph.names import tensor_names, unique_name
from quantkit.graph.subgraphs import captured_names
from quantkit.qdq.decided_constants import DecidedConstants, FoldedConstants
from quantkit.qdq.fold_constants import with_constants
from quantkit.qdq.reader import QdqGraph

if TYPE_CHECKING:
    import onnx

    from quantkit.values import Array

Replacement: TypeAlias = "Callable[[onnx.NodeProto, set[str], set[str]], Sequence[onnx.NodeProto]]"
"""Makes the nodes that take the place of one. It is given the names of tensors and of nodes that are taken, and adds
those that it takes."""


class GraphEdit:
    """Inputs of nodes that are replaced, nodes that are removed or replaced, and initializers that are added."""

    def __init__(self, qdq: QdqGraph) -> None:
        self.qdq = qdq
        self._names = tensor_names(qdq.graph)
        self._inputs: dict[tuple[str, int], str] = {}
        """(first output of a node, place) → the name that it reads now."""
        self._renamed: dict[str, str] = {}
        self._removed: set[str] = set()
        self._replaced: dict[str, Replacement] = {}
        self._retyped: set[str] = set()
        self._added: list[onnx.TensorProto] = []
        self._folded = DecidedConstants(qdq.model, {}, {}, {}, {}), FoldedConstants({}, {})
        self._constants: dict[tuple[str, bytes, tuple[int, ...], str], str] = {}

    def set_input(self, output: str, place: int, name: str) -> None:
        """Let the node that makes `output` read another tensor."""
        self._inputs[output, place] = name

    def remove_node(self, output: str, instead: str | None = None) -> None:
        """Remove the node that makes `output`; what reads it reads the tensor `instead`."""
        self._removed.add(output)
        if instead is not None:
            self._renamed[output] = instead

    def replace_node(self, output: str, replacement: Replacement) -> None:
        """Put others in the place of the node that makes `output`; they see its inputs as all changes leave them."""
        self._replaced[output] = replacement

    def fold(self, decided: DecidedConstants, folded: FoldedConstants) -> None:
        """Put constants in the place of the operators that compute them."""
        self._folded = (decided, folded)

    def forget_type(self, tensor: str) -> None:
        """Remove the type that the file records for a tensor, since it is another now."""
        self._retyped.add(tensor)

    def add_constant(self, values: Array, name: str) -> str:
        """Return the name of a new initializer, close to `name`; equal ones are stored once."""
        key = (name, values.tobytes(), values.shape, str(values.dtype))
        if key not in self._constants:
            self._constants[key] = unique_name(name, self._names)
            self.store(values, self._constants[key])
        return self._constants[key]

    def store(self, values: Array, name: str) -> None:
        """Add an initializer under a name that is free, or becomes free by other changes."""
        from onnx import numpy_helper

        self._added.append(numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name))

    def result(self) -> onnx.ModelProto:
        """Return the edited copy, without stored tensors that nothing reads any more."""
        copy = with_constants(self.qdq.model.proto, *self._folded)
        graph = copy.graph
        before = tensors_read(graph)
        nodes = [node for node in graph.node if node.output[0] not in self._removed]
        for node in nodes:
            if len(node.input) == 2 and (node.output[0], 2) in self._inputs:
                node.input.append("")
            for k, name in enumerate(node.input):
                node.input[k] = self._inputs.get((node.output[0], k), self._renamed.get(name, name))
        taken = {node.name for node in nodes}
        del graph.node[:]
        for node in nodes:
            replacement = self._replaced.get(node.output[0])
            graph.node.extend([node] if replacement is None else replacement(node, self._names, taken))
        graph.initializer.extend(self._added)
        remove_lost_tensors(graph, before, self._retyped)
        return copy


def tensors_read(graph: onnx.GraphProto) -> set[str]:
    """Return every tensor that something reads, inside subgraphs too."""
    names = {value.name for value in graph.output}
    for node in graph.node:
        names.update(node.input)
        names |= captured_names(node)
    return names


def remove_lost_tensors(graph: onnx.GraphProto, before: set[str], retyped: set[str]) -> None:
    """Remove initializers and Constant nodes that lost their last reader, and the recorded types of such and `retyped`.

    before: the tensors that were read before the graph was edited.
    """
    lost = before - tensors_read(graph) - {value.name for value in graph.input}
    nodes = [node for node in graph.node if node.op_type != "Constant" or node.output[0] not in lost]
    initializers = [tensor for tensor in graph.initializer if tensor.name not in lost]
    types = [value for value in graph.value_info if value.name not in lost | retyped]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(initializers)
    graph.value_info.extend(types)
