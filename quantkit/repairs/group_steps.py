"""The effect of each operator on a group of tensors that take a factor per channel (see `linking`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from quantkit.graph.operators import HOMOGENEOUS, ONNX_DOMAINS, POOLS, RESHAPING
from quantkit.repairs.editing import REPAIRED
from quantkit.repairs.linking import (
    HALF_MAX,
    HUGE,
    ChannelLayout,
    GroupEnd,
    GroupStep,
    Network,
    layout_after_reshape,
    layout_before_merge,
)

if TYPE_CHECKING:
    import onnx


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Return the value of an attribute."""
    from onnx import helper

    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def group_step(network: Network, number: int, place: int, where: ChannelLayout) -> GroupStep | None:
    """Return the effect of node `number` on a group that it touches at input `place` (−1: its output).

    None if factors cannot pass it.
    """
    node = network.nodes[number]
    if node.domain not in ONNX_DOMAINS:
        return None
    if node.op_type in network.absorbing and place < 0:
        return end_at_absorbing(network, number, where)
    through = HOMOGENEOUS | POOLS | RESHAPING | {"PRelu", "Clip", "ReduceMean", "Mul", "Div", "Cast"}
    if node.op_type in through:
        return pass_through(network, node, place, where)
    known = STEPS.get(node.op_type)
    return known(network, number, place, where) if known else None


def pass_through(network: Network, node: onnx.NodeProto, place: int, where: ChannelLayout) -> GroupStep | None:
    """Handle an operator with one activation in and one out, which belong together."""
    constants = [name for name in node.input if network.editor.constant(name)]
    data = 0
    if node.op_type == "Mul" and node.input[0] in constants:
        data = 1
    if place not in (-1, data) or not commutes_with_factors(network, node, where, data):
        return None
    near, far = (node.input[data], node.output[0]) if place >= 0 else (node.output[0], node.input[data])
    if node.op_type == "ReduceMean":
        return pass_reduce_mean(network, node, place, where, far)
    if node.op_type not in RESHAPING:
        return GroupStep({far: where})
    shapes = network.shapes.get(near), network.shapes.get(far)
    found = layout_after_reshape(where, *shapes) or layout_before_merge(where, *shapes)
    return GroupStep({far: found}) if found else None


def pass_reduce_mean(
    network: Network, node: onnx.NodeProto, place: int, where: ChannelLayout, far: str
) -> GroupStep | None:
    """Handle ReduceMean over axes other than the channels, which move to the front without keepdims."""
    rank, axes = len(network.shapes.get(node.input[0], ())), attribute(node, "axes", None)
    if axes is None or not rank:
        return None
    gone = {axis % rank for axis in axes}
    kept = [axis for axis in range(rank) if axis not in gone or attribute(node, "keepdims", 1)]
    source = where.axis if place >= 0 else kept[where.axis]
    if source in gone:
        return None
    return GroupStep({far: ChannelLayout(kept.index(source) if place >= 0 else source, where.repeat)})


def commutes_with_factors(network: Network, node: onnx.NodeProto, where: ChannelLayout, data: int) -> bool:
    """Return True if f(s·x) = s·f(x) for positive factors s per channel."""
    constant, operator = network.editor.constant, node.op_type
    if operator in POOLS:
        return where.axis == 1
    if operator == "Cast":
        return all(network.index.types.get(name) in REPAIRED for name in (node.input[0], node.output[0]))
    if operator == "PRelu":
        return constant(node.input[1])
    if operator in ("Mul", "Div"):
        near, far = network.shapes.get(node.input[data], ()), network.shapes.get(node.output[0], ())
        # the constant must not broadcast the shape or the channels
        return (
            constant(node.input[1 - data])
            and len(near) == len(far) > where.axis
            and near[where.axis] == far[where.axis]
        )
    if operator == "Clip":
        bounds = [*node.input[1:], "", ""][:2]
        if any(name and not constant(name) for name in bounds):
            return False
        huge = HALF_MAX if network.index.types.get(node.output[0]) == "float16" else HUGE
        low = float(network.editor.values(bounds[0]).min()) if bounds[0] else attribute(node, "min", -HUGE)
        high = float(network.editor.values(bounds[1]).max()) if bounds[1] else attribute(node, "max", HUGE)
        return (low == 0.0 or low <= -huge) and high >= huge
    return True


def join_addition(network: Network, number: int, place: int, where: ChannelLayout) -> GroupStep | None:
    """Handle Add and Sub: all activations belong to the group, a constant takes the factor."""
    node, out = network.nodes[number], network.nodes[number].output[0]
    shape = network.shapes.get(out)
    if not shape:
        return GroupStep(reason=f"the shape of {out} is not known")
    tensors, ends = {out: where}, []
    for k, name in enumerate(node.input):
        if network.editor.constant(name):
            if len(network.editor.shape(name)) > len(shape):
                return None
            if place == -1:  # the output is visited in any case, so each constant is added once
                ends.append(GroupEnd(number, k, -1, where.axis - len(shape), where.repeat))
            continue
        theirs = network.shapes.get(name, ())
        if len(theirs) != len(shape) or theirs[where.axis] != shape[where.axis]:
            return GroupStep(reason=f"{name} is broadcast in {node.op_type} {out}")
        tensors[name] = where
    return GroupStep(tensors, tuple(ends))


def end_at_convolution(network: Network, number: int, place: int, where: ChannelLayout) -> GroupStep | None:
    """Handle Conv and ConvTranspose: output channels divide by the factors, input channels multiply."""
    node = network.nodes[number]
    if where.axis != 1 or place > 0 or not has_known_weights(network, node):
        return None
    rank, groups = len(network.editor.shape(node.input[1])), attribute(node, "group", 1)
    first, second = -rank, 1 - rank
    transposed = node.op_type == "ConvTranspose"
    if place == 0:
        axis = first if transposed else second
        blocks = 1 if transposed else groups
        return GroupStep(ends=(GroupEnd(number, 1, 1, axis, where.repeat, blocks, node.input[0]),))
    if transposed and groups > 1:  # the scale of a channel is that of the channels of all groups in its place
        return GroupStep(reason=f"the groups of {node.input[1]} share their scales")
    axis = second if transposed else first
    return GroupStep(ends=(GroupEnd(number, 1, -1, axis, where.repeat), *bias_end(node, number, where)))


def end_at_matmul(network: Network, number: int, place: int, where: ChannelLayout) -> GroupStep | None:
    """Handle Gemm and MatMul with the weights on the right."""
    node = network.nodes[number]
    rank = len(network.shapes.get(node.input[0], ()))
    gemm = node.op_type == "Gemm"
    if place > 0 or not has_known_weights(network, node) or len(network.editor.shape(node.input[1])) != 2:
        return None
    if where.axis != (1 if gemm else rank - 1) or (gemm and attribute(node, "transA", 0)):
        return None
    flipped = gemm and attribute(node, "transB", 0)
    if place == 0:
        return GroupStep(ends=(GroupEnd(number, 1, 1, -1 if flipped else -2, where.repeat, 1, node.input[0]),))
    return GroupStep(
        ends=(GroupEnd(number, 1, -1, -2 if flipped else -1, where.repeat), *bias_end(node, number, where))
    )


def end_at_batch_norm(network: Network, number: int, place: int, where: ChannelLayout) -> GroupStep | None:
    """Handle BatchNormalization: γ·(x − μ)/σ + β has parameters for both of its sides."""
    node = network.nodes[number]
    known = all(network.editor.constant(name) for name in node.input[1:5])
    if where.axis != 1 or place > 0 or not known or attribute(node, "training_mode", 0) or len(node.output) > 1:
        return None
    ends = ((1, -1), (2, -1)) if place < 0 else ((1, 1), (3, -1))
    return GroupStep(ends=tuple(GroupEnd(number, k, power, -1, where.repeat) for k, power in ends))


def end_at_absorbing(network: Network, number: int, where: ChannelLayout) -> GroupStep | None:
    """Handle LayerNormalization and Mul at their output: scale and bias, or the constant, take the factors."""
    node = network.nodes[number]
    rank = len(network.shapes.get(node.output[0], ()))
    if node.op_type == "Mul":
        places = [k for k in (0, 1) if network.editor.constant(node.input[k])]
        if len(places) != 1 or not rank or len(network.editor.shape(node.input[places[0]])) > rank:
            return None
        return GroupStep(ends=(GroupEnd(number, places[0], -1, where.axis - rank, where.repeat),))
    parameters = [k for k in (1, 2) if k < len(node.input) and node.input[k]]
    if not rank or where.axis != rank - 1 or attribute(node, "axis", -1) % rank != rank - 1:
        return None
    if not all(network.editor.constant(node.input[k]) for k in parameters) or any(node.output[1:]):
        return None
    return GroupStep(ends=tuple(GroupEnd(number, k, -1, -1, where.repeat) for k in parameters))


def bias_end(node: onnx.NodeProto, number: int, where: ChannelLayout) -> tuple[GroupEnd, ...]:
    """Return the bias of a weighted operator, if it has one."""
    has = len(node.input) > 2 and node.input[2]
    return (GroupEnd(number, 2, -1, -1, where.repeat),) if has else ()


def has_known_weights(network: Network, node: onnx.NodeProto) -> bool:
    """Return True if the weights, and the bias if there is one, are constants, and the first input is not."""
    names = [name for name in node.input[1:] if name]
    return all(network.editor.constant(name) for name in names) and not network.editor.constant(node.input[0])


STEPS: dict[str, Callable[[Network, int, int, ChannelLayout], GroupStep | None]] = {
    "Add": join_addition,
    "Sub": join_addition,
    "Conv": end_at_convolution,
    "ConvTranspose": end_at_convolution,
    "Gemm": end_at_matmul,
    "MatMul": end_at_matmul,
    "BatchNormalization": end_at_batch_norm,
}
