"""A copy of a model whose weights can be read and replaced, without touching what else reads them.

A repair changes a weight for one node. Where the weight has that reader only, it is replaced in place; if others
read it too (a shared weight, a subgraph, a graph output), that node gets a copy under a new name. Weights that nothing
reads any more are removed. Weights in float16 are read and repaired in float32, and stored in float16 again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from quantkit.errors import ModelError
from quantkit.graph.index import wire_graph
from quantkit.graph.model import DTYPES, Model
from quantkit.graph.names import tensor_names, unique_name
from quantkit.graph.weights import stored_tensors, weight_values

if TYPE_CHECKING:
    import onnx

    from quantkit.values import Array

REPAIRED = frozenset({"float16", "float32"})
"""Types of weights that can be repaired."""


class WeightEditor:
    """Reads and replaces the weights of a copy of `model`."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.proto = type(model.proto)()
        self.proto.CopyFrom(model.proto)
        graph = self.proto.graph
        self._weights = stored_tensors(graph)
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._readers = wire_graph(graph).read_counts()
        self._names = tensor_names(graph)
        self._replaced: set[str] = set()

    def constant(self, name: str) -> bool:
        """Return True if a tensor is a float32 or float16 weight whose values are known and stay so, and has some."""
        tensor = self._weights.get(name)
        return tensor is not None and 0 not in tensor.dims and DTYPES.get(tensor.data_type) in REPAIRED

    def reason(self, names: Iterable[str]) -> str:
        """Why none of the tensors is such a weight."""
        kinds = {
            DTYPES.get(self._weights[name].data_type, "of another type") for name in names if name in self._weights
        }
        if any(0 in self._weights[name].dims for name in names if name in self._weights):
            return "its weights are empty"
        other = sorted(kinds - REPAIRED)
        return f"its weights are {other[0]}, repairs need float32 or float16" if other else "its weights are not known"

    def reads(self, name: str) -> int:
        """How often a tensor is read, as an output of the network and in subgraphs too."""
        return self._readers[name]

    def weight_of(self, number: int, place: int) -> str:
        """Return the name of input `place` of node `number`."""
        name: str = self.proto.graph.node[number].input[place]
        return name

    def set_attribute(self, node: onnx.NodeProto, name: str, value: float) -> None:
        """Set an attribute of a node."""
        from onnx import helper

        for attribute in [attribute for attribute in node.attribute if attribute.name == name]:
            node.attribute.remove(attribute)
        node.attribute.append(helper.make_attribute(name, value))

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a weight."""
        return tuple(self._weights[name].dims)

    def dtype(self, name: str) -> type[np.floating[Any]]:
        """Return the type in which a weight is stored."""
        return np.float16 if DTYPES.get(self._weights[name].data_type) == "float16" else np.float32

    def values(self, name: str) -> Array:
        """Return the values of a weight in float32, read-only. ModelError where one is NaN, or infinite in a matrix.

        A bias of −Inf switches a class off.
        """
        values = weight_values(self._weights[name], self._model).astype(np.float32, copy=False)
        if np.isnan(values).any() or (values.ndim > 1 and np.isinf(values).any()):
            raise ModelError(f"{self._model.path}: weight {name!r} holds NaN or Inf", remedy="export the model again")
        return values

    def fits(self, node: onnx.NodeProto, place: int, values: Array) -> bool:
        """Return True if no finite value is beyond the type in which input `place` of `node` is stored."""
        finite = np.asarray(values)[np.isfinite(values)]
        return bool(np.isfinite(stored_as(finite, self._stored_type(node, place))).all())

    def replace(self, node: onnx.NodeProto, place: int, values: Array) -> None:
        """Replace the values of input `place` of `node`, in its type; a missing input is added in that of the weights.

        The values have to fit that type (`fits`).
        """
        from onnx import numpy_helper

        assert self.fits(node, place, values), "bug in quantkit: a repaired value exceeds its type"
        values = stored_as(values, self._stored_type(node, place))
        name = node.input[place] if place < len(node.input) else ""
        tensor = self._initializers.get(name)
        if tensor is not None and self._readers[name] == 1:
            tensor.CopyFrom(numpy_helper.from_array(values, name))
            return
        added = unique_name(f"{name}_repaired" if name else f"{node.output[0]}_bias", self._names)
        created = self.proto.graph.initializer.add()
        created.CopyFrom(numpy_helper.from_array(values, added))
        self._initializers[added] = self._weights[added] = created
        self._readers[added] += 1
        if name:
            self._readers[name] -= 1
            self._replaced.add(name)
        node.input.extend([""] * (place + 1 - len(node.input)))
        node.input[place] = added

    def _stored_type(self, node: onnx.NodeProto, place: int) -> type[np.floating[Any]]:
        names = [node.input[place]] if place < len(node.input) and node.input[place] else node.input
        return self.dtype(next(name for name in names if self.constant(name)))

    def finished(self) -> onnx.ModelProto:
        """Return the edited model, without weights that nothing reads any more."""
        graph = self.proto.graph
        orphans = {name for name in self._replaced if not self._readers[name]}
        while orphans:
            makers = [node for node in graph.node if set(node.output) <= orphans and node.output]
            for node in makers:
                graph.node.remove(node)
                self._readers.subtract(node.input)
            for part in (graph.initializer, graph.input):
                for value in [value for value in part if value.name in orphans]:
                    part.remove(value)
            orphans = {name for node in makers for name in node.input if name and not self._readers[name]}
        return self.proto


def stored_as(values: Array, dtype: type[np.floating[Any]]) -> Array:
    """Return values as they are stored, rounded to the nearest; those beyond the type become infinite."""
    with np.errstate(over="ignore", under="ignore"):
        stored: Array = np.ascontiguousarray(values).astype(dtype)
    return stored
