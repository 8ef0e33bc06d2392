"""Which tensors of a graph a calibration watches, and how TensorRT shares their scales.

Watched is every float tensor that TensorRT 8.6 … 10.x puts into its table and that exists in the ONNX graph: the
inputs, and every output of every operator that depends on an input. Not watched are weights and what is computed from
them or from shapes alone (TensorRT folds it), integer tensors, unread tensors, and tensors inside If, Loop and Scan.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from quantkit.graph.dependencies import constant_tensors, live_tensors
from quantkit.graph.model import Model, node_name
from quantkit.graph.operators import CONVOLUTIONS, DATA_DEPENDENT, INDEXING, ONNX_DOMAINS, WINDOW_POOLS
from quantkit.graph.shape_inference import element_types, infer_types, tensor_shapes
from quantkit.graph.subgraphs import count_inner_operators

if TYPE_CHECKING:
    import onnx

FLOATS = frozenset({"float16", "float32", "float64"})


@dataclass(frozen=True, slots=True)
class ChannelView:
    """The channels of an input of a weighted operator lie along `axis` of the tensor."""

    tensor: str
    axis: int


@dataclass(frozen=True, slots=True)
class Watch:
    """The tensors to watch in a graph.

    tensors: names in the order of TensorRT's table: inputs, then outputs of the operators in graph order.
    shared: pool output → the tensor whose scale it takes.
    channels: per-channel views of the inputs of weighted operators.
    unwatched: float tensors that are left out, with the reason.
    fixed_shapes: whether shapes follow from the input shapes alone, so that buffers can be allocated once.
    """

    tensors: tuple[str, ...]
    shared: Mapping[str, str]
    channels: tuple[ChannelView, ...]
    unwatched: Mapping[str, str] = field(default_factory=dict)
    fixed_shapes: bool = True

    def only(self, tensors: Collection[str]) -> Watch:
        """Return what to watch of some tensors."""
        return replace(
            self,
            tensors=tuple(name for name in self.tensors if name in tensors),
            shared={pool: source for pool, source in self.shared.items() if pool in tensors and source in tensors},
            channels=tuple(view for view in self.channels if view.tensor in tensors),
        )


def watched_tensors(model: Model) -> Watch:
    """Return the tensors of `model` that get a scale. Types are inferred by ONNX if the file lacks them."""
    graph = model.proto.graph
    known = constant_tensors(graph)
    live = live_tensors(graph)
    typed = infer_types(model.proto).graph
    types, rank = element_types(typed), {name: len(shape) for name, shape in tensor_shapes(typed).items()}
    inputs = [i.name for i in model.inputs]
    candidates = [*inputs, *(name for node in graph.node for name in node.output if name)]
    tensors = tuple(
        name
        for name in dict.fromkeys(candidates)
        if name not in known and name in live and types.get(name, "float32") in FLOATS
    )
    inner = {
        node.output[0]: f"inside {node.op_type} {node_name(node)!r}: {inside} operators"
        for node in graph.node
        if (inside := count_inner_operators(node))
    }
    brain = [name for name in dict.fromkeys(candidates) if types.get(name) == "bfloat16" and name in live - known]
    if brain:
        inner["bfloat16"] = f"{len(brain)} bfloat16 tensors, which numpy does not know; export the network in float32"
    watched = set(tensors)
    return Watch(
        tensors,
        pool_scale_sources(graph.node, watched),
        channel_views(graph.node, watched, known, rank),
        inner,
        has_fixed_shapes(graph.node, known, types),
    )


def pool_scale_sources(nodes: Iterable[onnx.NodeProto], watched: set[str]) -> dict[str, str]:
    """Return pool output → the first tensor before the pools, for pools whose output takes the scale of their input."""
    shared: dict[str, str] = {}
    for node in nodes:
        if node.op_type in WINDOW_POOLS and node.output[0] in watched and node.input[0] in watched:
            shared[node.output[0]] = shared.get(node.input[0], node.input[0])
    return shared


def channel_views(
    nodes: Iterable[onnx.NodeProto], watched: set[str], constant: set[str], rank: Mapping[str, int]
) -> tuple[ChannelView, ...]:
    """Return the activations that weights are applied to, with the axis that is summed over."""
    views: dict[ChannelView, None] = {}
    for node in nodes:
        for tensor, axis in weighted_inputs(node, constant):
            if tensor in watched and rank.get(tensor, 4) > (axis if axis >= 0 else -axis - 1):
                views[ChannelView(tensor, axis)] = None
    return tuple(views)


def weighted_inputs(node: onnx.NodeProto, constant: set[str]) -> list[tuple[str, int]]:
    """Return the activation inputs of a weighted operator, each with its channel axis."""
    if node.op_type in CONVOLUTIONS:
        return [(node.input[0], 1)]
    if node.op_type == "Gemm":
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        return [(node.input[0], 0 if transposed else 1)]
    if node.op_type == "MatMul":
        left, right = node.input[0], node.input[1]
        if right in constant:
            return [(left, -1)]
        if left in constant:
            return [(right, -2)]
    return []


def has_fixed_shapes(nodes: Iterable[onnx.NodeProto], known: set[str], types: Mapping[str, str]) -> bool:
    """Return whether every shape certainly follows from the shapes of the inputs."""
    for node in nodes:
        depends = [name for name in node.input if name and name not in known]
        if not depends and not count_inner_operators(node):
            continue
        if node.op_type in DATA_DEPENDENT or node.domain not in ONNX_DOMAINS:
            return False
        # The first input is what is worked on; others that are no floats may say how large the output is.
        settings = [name for name in node.input[1:] if name and name not in known]
        if node.op_type not in INDEXING and any(types.get(name) not in FLOATS for name in settings):
            return False
    return True
