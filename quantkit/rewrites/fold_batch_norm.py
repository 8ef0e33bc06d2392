"""Folding of BatchNormalizations into the weights before them, as TensorRT does when it builds an engine.

In inference a BatchNormalization is y = (x − mean)·g + B with g = scale/√(var + epsilon), one g for each channel.
Behind an operator with constant weights it disappears:

    x = W·a + b    →    y = (W·g)·a + (b − mean)·g + B

W and b are multiplied in float64 and rounded once, to the type of the weights. If W were quantized before folding, its
scales would belong to channels that no engine ever sees. The operator that now makes y keeps the name y, by which
statistics and tables know it.
Source: Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference",
2018, section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from quantkit.graph.dead_nodes import remove_unread
from quantkit.graph.index import wire_graph
from quantkit.graph.model import DTYPES, Model
from quantkit.graph.names import tensor_names, unique_name
from quantkit.graph.operators import ONNX_DOMAINS, WEIGHTED, convolution_groups, weight_axis
from quantkit.graph.shape_inference import infer_types, tensor_shapes
from quantkit.graph.subgraphs import subgraphs
from quantkit.graph.tensors import FLOATS
from quantkit.graph.weights import stored_tensors, weight_values
from quantkit.numerics import float32
from quantkit.qdq.fold_constants import fold_constants
from quantkit.rewrites.single_matrices import unstack_matrices

if TYPE_CHECKING:
    import onnx

    from quantkit.values import Array

LEAST_OPSET = 7
"""The first opset whose BatchNormalization is in inference mode unless it has further outputs."""
EPSILON = float32(1e-5)


@dataclass(frozen=True, slots=True)
class FoldedNetwork:
    """A network without the BatchNormalizations that could be folded.

    folded: names of their nodes; left: node → why it stays. A node without a name goes by its first output.
    """

    proto: onnx.ModelProto
    folded: tuple[str, ...]
    left: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class FoldTarget:
    """The operator that a BatchNormalization folds into.

    bias: the name of its bias, empty if it has none; add: the node that adds it to the product of a MatMul.
    """

    node: onnx.NodeProto
    bias: str
    add: onnx.NodeProto | None = None


def fold_batch_norms(model: Model) -> FoldedNetwork:
    """Fold every BatchNormalization directly behind a Conv, ConvTranspose, Gemm or MatMul with constant weights.

    What constants alone decide is folded into initializers before (`fold_constants`), and stacks of one matrix become
    matrices (`unstack_matrices`). The model itself is not modified.
    External weights stay in their file unless they change. ModelError if an external file is missing.
    """
    model = replace(model, proto=fold_constants(model))
    model = replace(model, proto=unstack_matrices(model))
    if not any(is_batchnorm(node) for node in model.proto.graph.node):
        return FoldedNetwork(
            model.proto, (), {name: why for n in model.proto.graph.node for name, why in nested_batch_norms(n).items()}
        )
    folding = BatchNormFolder(model)
    done: list[str] = []
    left: dict[str, str] = {}
    for node in list(folding.proto.graph.node):
        if is_batchnorm(node):
            name = node.name or node.output[0]
            reason = folding.fold(node)
            if reason:
                left[name] = reason
            else:
                done.append(name)
        left |= nested_batch_norms(node)
    folding.finish()
    return FoldedNetwork(folding.proto, tuple(done), left)


def is_batchnorm(node: onnx.NodeProto) -> bool:
    """Return whether a node is ONNX's BatchNormalization."""
    return node.op_type == "BatchNormalization" and node.domain in ONNX_DOMAINS


def nested_batch_norms(node: onnx.NodeProto) -> dict[str, str]:
    """Return the BatchNormalizations in the subgraphs of a node, which stay, with the reason."""
    found: dict[str, str] = {}
    for attribute in node.attribute:
        for graph in subgraphs(attribute):
            for inner in graph.node:
                if is_batchnorm(inner):
                    found[inner.name or inner.output[0]] = f"inside {node.op_type} {node.name or node.output[0]!r}"
                found |= nested_batch_norms(inner)
    return found


class BatchNormFolder:
    """A copy of a model that is being edited."""

    def __init__(self, model: Model) -> None:
        import onnx

        self.proto = onnx.ModelProto()
        self.proto.CopyFrom(model.proto)
        graph = self.proto.graph
        self._model = model
        self._weights = stored_tensors(graph)
        self._stored = {tensor.name: number for number, tensor in enumerate(graph.initializer)}
        wiring = wire_graph(graph)
        self._makers = {name: wiring.nodes[number] for name, number in wiring.makers.items()}
        self._reads = wiring.read_counts()
        self._names = tensor_names(graph)
        self._vanished: set[str] = set()
        self._orphans: set[str] = set()
        self._ranks: dict[str, int] | None = None

    def fold(self, node: onnx.NodeProto) -> str:
        """Fold one BatchNormalization; return why it stays, or an empty string if it was folded."""
        if self._model.opset < LEAST_OPSET:
            return f"opset {self._model.opset} is older than {LEAST_OPSET}"
        reason = training_reason(node, self._reads)
        if reason:
            return reason
        if any(name not in self._weights for name in node.input[1:5]):
            return "its parameters are computed by the network"
        target = self._target(node)
        if isinstance(target, str):
            return target
        weight = self._weights[target.node.input[1]]
        if DTYPES.get(weight.data_type) not in FLOATS:
            return f"the weights of {node_label(target.node)} are {DTYPES.get(weight.data_type, 'of an unknown type')}"
        return self._fold_into(target, node, weight_values(weight, self._model))

    def finish(self) -> None:
        """Remove the folded nodes, and the weights that nothing reads any more."""
        graph = self.proto.graph
        keep = [node for node in graph.node if node.op_type]
        for alias in [node for node in reversed(keep) if node.op_type == "Identity"]:
            if alias.output[0] in self._orphans and not self._reads[alias.output[0]]:
                keep.remove(alias)
                self._orphans.add(alias.input[0])
                self._reads[alias.input[0]] -= 1
        values = [value for value in graph.value_info if value.name not in self._vanished]
        del graph.node[:], graph.value_info[:]
        graph.node.extend(keep)
        graph.value_info.extend(values)
        remove_unread(graph, sorted(self._orphans), ())

    def _target(self, norm: onnx.NodeProto) -> FoldTarget | str:
        """Return the operator that a BatchNormalization folds into, or why there is none."""
        node = self._makers.get(norm.input[0])
        add = None
        bias = ""
        if node is not None and node.op_type == "Add" and len(node.input) == 2:
            product = self._makers.get(next((n for n in node.input if n not in self._weights), ""))
            constant = next((n for n in node.input if n in self._weights), "")
            if product is not None and product.op_type == "MatMul" and constant:
                node, add, bias = product, node, constant
        if node is None or node.domain not in ONNX_DOMAINS:
            return "no operator with weights directly before it"
        if node.op_type not in WEIGHTED:
            return f"no operator with weights directly before it, but {node_label(node)}"
        if any(self._reads[maker.output[0]] > 1 for maker in (node, add) if maker is not None):
            return f"the output of {node_label(node)} is read elsewhere too"
        if node.input[1] not in self._weights or node.input[0] in self._weights:
            return f"the weights of {node_label(node)} are not its second input, or computed by the network"
        if node.op_type == "MatMul":
            if self._rank(node.input[0]) != 2 or len(self._weights[node.input[1]].dims) != 2:
                return f"{node_label(node)} does not multiply two matrices: its channels are not those of its weights"
            return FoldTarget(node, bias, add)
        bias = node.input[2] if len(node.input) > 2 else ""
        if bias and bias not in self._weights:
            return f"the bias of {node_label(node)} is computed by the network"
        return FoldTarget(node, bias)

    def _fold_into(self, target: FoldTarget, norm: onnx.NodeProto, weight: Array) -> str:
        scale, shift, mean, variance = (
            weight_values(self._weights[name], self._model).astype(np.float64) for name in norm.input[1:5]
        )
        bias = weight_values(self._weights[target.bias], self._model).astype(np.float64) if target.bias else np.zeros(1)
        channels = output_channels(target.node, weight)
        if any(part.shape != (channels,) for part in (scale, shift, mean, variance)):
            return f"its parameters are not one for each of the {channels} channels of {node_label(target.node)}"
        if math.prod(bias.shape[:-1]) != 1 or bias.size not in (1, channels):
            return f"the bias of {node_label(target.node)} is not one value for each channel"
        epsilon = next((a.f for a in norm.attribute if a.name == "epsilon"), EPSILON)
        beta = next((a.f for a in target.node.attribute if a.name == "beta"), 1.0)
        with np.errstate(all="ignore"):
            factor = scale / np.sqrt(variance + epsilon)
            product = scale_channels(weight.astype(np.float64), factor, target.node).astype(weight.dtype)
            summand = ((beta * bias.reshape(-1) - mean) * factor + shift).astype(weight.dtype)
        if not (np.isfinite(product).all() and np.isfinite(summand).all()):
            return f"folded into {node_label(target.node)}, weights would not be finite in {weight.dtype}"
        self._rewire(target, norm, product, summand)
        return ""

    def _rewire(self, target: FoldTarget, norm: onnx.NodeProto, weight: Array, bias: Array) -> None:
        """Give a target its new weights and the output of the BatchNormalization."""
        node = target.node
        name = node.input[1]
        result = norm.output[0]
        self._reads.subtract(norm.input)
        self._orphans.update(norm.input[1:5])
        self._vanished.update((norm.input[0], node.output[0]))
        node.input[1] = self._store(name, weight)
        summand = self._store(target.bias, bias) if target.bias else self._new(f"{name}_bias", bias)
        for attribute in [a for a in node.attribute if a.name == "beta"]:
            node.attribute.remove(attribute)
        if node.op_type == "MatMul":
            node.output[0] = unique_name(f"{result}_product", self._names)
            self._add(target.add or norm, node.output[0], summand, result)
            if target.add is None:
                return
        else:
            del node.input[2:]
            node.input.append(summand)
            node.output[0] = result
            self._makers[result] = node
        norm.Clear()  # a node without an operator, which `finish` takes out

    def _add(self, node: onnx.NodeProto, product: str, bias: str, result: str) -> None:
        """Turn a node, the BatchNormalization itself or the Add before it, into the Add of the bias."""
        node.op_type = "Add"
        del node.input[:], node.output[:], node.attribute[:]
        node.input.extend((product, bias))
        node.output.append(result)
        self._makers[result] = node
        self._reads[product] += 1

    def _store(self, name: str, values: Array) -> str:
        """Store weights in the place of the old ones, or as new ones if others read the old; return their name."""
        from onnx import numpy_helper

        if name not in self._stored or self._reads[name] > 1:
            self._reads[name] -= 1
            self._orphans.add(name)
            return self._new(f"{name}_folded", values)
        tensor = self.proto.graph.initializer[self._stored[name]]
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), name))
        self._weights[name] = tensor
        return name

    def _new(self, wanted: str, values: Array) -> str:
        from onnx import numpy_helper

        graph = self.proto.graph
        name = unique_name(wanted, self._names)
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        self._stored[name] = len(graph.initializer) - 1
        self._weights[name] = graph.initializer[-1]
        self._reads[name] += 1
        return name

    def _rank(self, tensor: str) -> int | None:
        if self._ranks is None:
            self._ranks = {
                name: len(shape) for name, shape in tensor_shapes(infer_types(self._model.proto).graph).items()
            }
        return self._ranks.get(tensor)


def training_reason(node: onnx.NodeProto, reads: Mapping[str, int]) -> str:
    """Return why a BatchNormalization is not in inference mode; empty if it is."""
    if any(a.name == "training_mode" and a.i for a in node.attribute):
        return "it is in training mode"
    if any(a.name == "spatial" and not a.i for a in node.attribute):
        return "it has parameters for each pixel, not for each channel"
    further = [name for name in node.output[1:] if name]
    if any(reads.get(name) for name in further):
        return f"its further outputs are read: {', '.join(further)}"
    return "it is in training mode: it has further outputs" if further else ""


def output_channels(node: onnx.NodeProto, weight: Array) -> int:
    """Return the number of output channels of a weighted operator."""
    axis = weight_axis(node, 1, weight.ndim)
    return int(weight.shape[axis]) * (convolution_groups(node) if node.op_type == "ConvTranspose" else 1)


def scale_channels(weight: Array, factor: Array, node: onnx.NodeProto) -> Array:
    """Return a weight with every output channel multiplied by its factor."""
    if node.op_type == "ConvTranspose":  # [inputs, outputs of a group, …], the inputs group after group
        groups = convolution_groups(node)
        parts = weight.reshape(groups, -1, *weight.shape[1:])
        return (parts * factor.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))).reshape(weight.shape)
    shape = [1] * weight.ndim
    shape[weight_axis(node, 1, weight.ndim)] = -1
    return weight * factor.reshape(shape)


def node_label(node: onnx.NodeProto) -> str:
    """Return operator and name of a node, for example `Conv 'conv1'`."""
    return f"{node.op_type} {node.name or node.output[0]!r}"
