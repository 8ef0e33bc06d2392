"""A float network with the channel factors of a repaired one, which are estimated from the weights of both.

Equalization and smoothing divide the channels of a group of tensors by factors and multiply the weights around it
(`linking`). A file that was quantized afterwards does not record them, but they can be estimated: the weights on both
sides of a group agree about its factors. Applied to the float network they do not change what it computes, and its
weights become those that were rounded later.

    one weight      S = diag(a)·W·diag(b) + rounding    a and b up to a common factor, by alternating least squares
    one group       1/a of what makes it, b of what reads it: the majority of these, on a tie the factor closest to 1
    all groups      the factor common to a group's channels, so that most weights have the magnitude that they should

A group most of whose factors are 1 was not scaled. If a single weight disagrees with all others (a channel that is
wrong in the file), the disagreement remains as the error of that weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from quantkit.graph.model import Model
from quantkit.graph.operators import FACTOR_ABSORBING, WEIGHTED, weight_axis
from quantkit.repairs.editing import WeightEditor
from quantkit.repairs.group_search import find_group
from quantkit.repairs.half_range import half_obstacle
from quantkit.repairs.linking import ChannelGroup, ChannelLayout, GroupEnd, Network, spread_factors
from quantkit.repairs.scaling import group_channel_count, normalize_group, scale_group
from quantkit.repairs.smoothing import has_absorbing_maker
from quantkit.repairs.weighted_layers import weighted_layers

if TYPE_CHECKING:
    import onnx

    from quantkit.values import Array

SWEEPS = 4
"""Passes over all groups: the first estimates each group on its own, the others given the factors of its neighbours."""
AGREE = np.log(1.1)
"""Estimates that are this close agree."""
ONE = np.log(1.03)
"""A factor this close to 1 counts as 1."""
MOST = 0.6
"""A group was not scaled if this fraction of its estimates is 1."""
ROUNDS = 6
"""Iterations of alternating least squares."""
REWEIGHTED = 30
"""Iterations of reweighted least squares."""
STEP = 1 / (127 * np.sqrt(12))
"""Standard error of a value rounded to 8 bits, relative to the largest."""
EXACT = 1e-6
"""Standard error of a value that is not rounded."""
SURE = 0.02
"""An estimate with a larger standard error is ignored unless there is no better one."""


@dataclass(slots=True)
class AlignedGroup:
    """A group whose factors are estimated. names: the parameter at each end; logs: logarithms of the factors [C]."""

    network: Network
    group: ChannelGroup
    names: tuple[str, ...]
    logs: Array


def align_factors(plain: Model, other: Model) -> Model:
    """Return `plain` with the factors of `other`, the same network with other weights and without Q/DQ.

    Return `plain` itself if there are none. Nodes are matched by name, or by their first output. ModelError where a
    weight is not finite.
    """
    theirs = WeightEditor(other)
    nodes = {node.name: node for node in other.proto.graph.node if node.name}
    nodes |= {node.output[0]: node for node in other.proto.graph.node if node.output}
    editor = WeightEditor(plain)
    values: dict[str, Array] = {}
    goals: dict[str, Array] = {}
    found = [open_group(network, group, (theirs, nodes), values, goals) for network, group in scalable_groups(editor)]
    for sweep in range(SWEEPS):
        for each in found:
            estimate_factors(each, values, goals, first=sweep == 0)
        align_group_scales(found, values, goals)
    changed = [each for each in found if np.abs(each.logs).max(initial=0.0) > ONE]
    changed = [each for each in changed if not half_obstacle(each.network, each.group, {}, np.exp(each.logs))]
    for each in changed:
        scale_group(each.network, each.group, np.exp(each.logs))
    return replace(plain, proto=editor.finished()) if changed else plain


def scalable_groups(editor: WeightEditor) -> list[tuple[Network, ChannelGroup]]:
    """Return the groups that equalization and smoothing can scale, each once, in graph order."""
    found: dict[frozenset[tuple[int, int, int]], tuple[Network, ChannelGroup]] = {}
    for network in (Network(editor), Network(editor, FACTOR_ABSORBING)):
        done: set[str] = set()
        for layer in weighted_layers(editor, {}):
            rank = len(network.shapes.get(layer.tensor, ()))
            smooths = not network.absorbing or has_absorbing_maker(network, layer.tensor)
            if layer.tensor in done or not rank or not smooths:
                continue
            group = find_group(network, layer.tensor, ChannelLayout(layer.geometry.axis % rank))
            done.update(group.tensors)
            if not group.reason and not normalize_group(group, network):
                found.setdefault(frozenset((e.node, e.place, e.power) for e in group.ends), (network, group))
    return sorted(found.values(), key=lambda pair: min(end.node for end in pair[1].ends))


def open_group(
    network: Network,
    group: ChannelGroup,
    other: tuple[WeightEditor, Mapping[str, onnx.NodeProto]],
    values: dict[str, Array],
    goals: dict[str, Array],
) -> AlignedGroup:
    """Return a group; store its parameters in `values`, and those of the other network in `goals` if shapes agree."""
    theirs, nodes = other
    names = []
    for end in group.ends:
        node = network.nodes[end.node]
        name = node.input[end.place]
        names.append(name)
        match = nodes.get(node.name) or nodes.get(node.output[0])
        values.setdefault(name, network.editor.values(name).astype(np.float64))
        if name in goals or match is None or match.op_type != node.op_type or end.place >= len(match.input):
            continue
        goal = match.input[end.place]
        if theirs.constant(goal) and theirs.shape(goal) == values[name].shape and values[name].size > 1:
            goals[name] = theirs.values(goal).astype(np.float64)
    return AlignedGroup(network, group, tuple(names), np.zeros(group_channel_count(group, network)))


def estimate_factors(each: AlignedGroup, values: dict[str, Array], goals: Mapping[str, Array], *, first: bool) -> None:
    """Estimate what is missing from the factors of a group, and apply it to `values`."""
    estimates, errors = [], []
    for end, name in zip(each.group.ends, each.names, strict=True):
        node = each.network.nodes[end.node]
        if name not in goals or not holds_factors(node, end, values[name], first):
            continue
        found, error = estimate_from_parameter(end, node, (values[name], goals[name]), len(each.logs), first)
        estimates.append(found)
        errors.append(error)
    if not estimates:
        return
    step = combine_estimates(np.array(estimates), np.array(errors), each.logs, first)
    if not np.isnan(step).any():
        multiply_factors(each, step, values)


def multiply_factors(each: AlignedGroup, step: Array, values: dict[str, Array]) -> None:
    """Multiply what reads a group by factors, divide what makes it. step: their logarithms [C]."""
    each.logs = each.logs + step
    for end, name in zip(each.group.ends, each.names, strict=True):
        by = spread_factors(end, np.exp(step * end.power), values[name].shape)
        values[name] = values[name] * by


def align_group_scales(found: Sequence[AlignedGroup], values: dict[str, Array], goals: Mapping[str, Array]) -> None:
    """Apply one factor to each group, so that as many weights as possible have the magnitude that they should.

    Each weight relates the factors of two groups: median log|S|/|W| = Σ power·log factor. The sum of absolute
    residuals is minimized (iteratively reweighted least squares), so that a weight that is wrong as a whole has little
    influence.
    """
    rows: dict[str, Array] = {}
    for number, each in enumerate(found):
        for end, name in zip(each.group.ends, each.names, strict=True):
            if name in goals and holds_factors(each.network.nodes[end.node], end, values[name], first=False):
                rows.setdefault(name, np.zeros(len(found)))[number] += end.power
    if not rows:
        return
    matrix = np.array(list(rows.values()))
    residual = np.array([median_log_ratio(values[name], goals[name]) for name in rows])
    factors: Array = np.zeros(len(found))
    for _ in range(REWEIGHTED):
        weights = 1 / np.sqrt(np.maximum(np.abs(residual - matrix @ factors), 1e-4))
        factors = np.asarray(np.linalg.lstsq(matrix * weights[:, None], residual * weights, rcond=None)[0], np.float64)
    for each, factor in zip(found, factors, strict=True):
        multiply_factors(each, np.full(len(each.logs), factor), values)


def median_log_ratio(value: Array, goal: Array) -> float:
    """Return the median of log|goal/value| over the larger elements."""
    size = np.abs(goal)
    both = (size >= np.median(size)) & (size > 0) & (value != 0)
    return float(np.median(np.log(np.abs(goal[both] / value[both])))) if both.any() else 0.0


def holds_factors(node: onnx.NodeProto, end: GroupEnd, values: Array, first: bool) -> bool:
    """Return True if the factors can be estimated from a parameter.

    Biases are changed by other repairs as well. A depthwise weight holds the product of the factors on both sides, so
    that one of them has to be known first.
    """
    if node.op_type not in WEIGHTED:
        return node.op_type not in ("Add", "Sub")
    if end.place == 2:
        return False
    return not first or values.ndim < 2 or values.shape[1] > 1


def estimate_from_parameter(
    end: GroupEnd, node: onnx.NodeProto, both: tuple[Array, Array], count: int, first: bool
) -> tuple[Array, Array]:
    """Estimate the factors of a group from one parameter.

    Return their logarithms [C], nan if unknown, and their standard errors [C] due to rounding to 8 bits.
    """
    value, goal = both
    indices = spread_factors(replace(end, power=1), np.arange(count, dtype=np.float64), value.shape)
    owner = np.broadcast_to(np.asarray(indices), value.shape).astype(np.int64).reshape(-1)
    if node.op_type in WEIGHTED:
        rows = output_channel_indices(node, end, value.shape)
        largest = np.maximum(np.abs(goal).reshape(rows.shape), 0)
        peak = np.zeros(int(rows.max()) + 1)
        np.maximum.at(peak, rows.reshape(-1), largest.reshape(-1))
        peak[peak == 0] = 1.0
        value, goal = (value / peak[rows]).reshape(-1), (goal / peak[rows]).reshape(-1)
        power = np.sqrt(np.bincount(owner, goal * goal, count))
        error = STEP / np.maximum(power, STEP)
        if first:
            return end.power * alternating_ratio(value, goal, owner, opposite_channels(end, rows, both[0].shape)), error
        return end.power * least_squares_ratio(value, goal, owner, count), error
    return end.power * least_squares_ratio(value.reshape(-1), goal.reshape(-1), owner, count), np.full(count, EXACT)


def output_channel_indices(node: onnx.NodeProto, end: GroupEnd, shape: tuple[int, ...]) -> Array:
    """Return the output channel of every element of a weight."""
    axis = weight_axis(node, end.place, len(shape))
    index = np.arange(shape[axis]).reshape([-1 if d == axis else 1 for d in range(len(shape))])
    return np.broadcast_to(index, shape)


def opposite_channels(end: GroupEnd, rows: Array, shape: tuple[int, ...]) -> Array:
    """Return, for every element of a weight, the channel on the side that is not the group's."""
    if end.power > 0:
        return rows.reshape(-1)
    axis = next(d for d in range(len(shape)) if d != end.axis % len(shape))
    index = np.arange(shape[axis]).reshape([-1 if d == axis else 1 for d in range(len(shape))])
    return np.broadcast_to(index, shape).reshape(-1)


def least_squares_ratio(value: Array, goal: Array, owner: Array, count: int) -> Array:
    """Return the logarithm of the least squares factor from `value` to `goal` for each owner."""
    product = np.bincount(owner, value * goal, count)
    square = np.bincount(owner, value * value, count)
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Array = np.log(np.where(product > 0, product / square, np.nan))
    return found


def alternating_ratio(value: Array, goal: Array, owner: Array, other: Array) -> Array:
    """Return the same if the factors of the other side are unknown too, up to a constant: that side starts at 0."""
    count, others = int(owner.max()) + 1, int(other.max()) + 1
    logs, rest = np.zeros(count), np.zeros(others)
    for _ in range(ROUNDS):
        rest += np.nan_to_num(least_squares_ratio(value * np.exp(logs[owner] + rest[other]), goal, other, others))
        logs += np.nan_to_num(least_squares_ratio(value * np.exp(logs[owner] + rest[other]), goal, owner, count))
    return logs


def combine_estimates(estimates: Array, errors: Array, known: Array, first: bool) -> Array:
    """Combine the estimates from the ends of a group [E, C] into logarithms [C]; nan where there is no estimate."""
    total = estimates + known
    if first:  # each is known up to a constant: take that of the first
        total = total - np.nanmedian(total - total[:1], axis=1, keepdims=True)
    unsure = (errors > SURE) & (errors > errors.min(axis=0))
    total = np.where(unsure, np.nan, total)
    with np.errstate(invalid="ignore"):
        if (np.abs(total) < ONE)[~np.isnan(total)].mean() >= MOST:
            return -known
        near = np.abs(total[:, None] - total[None]) < AGREE
    support = near.sum(axis=1) - np.abs(np.nan_to_num(total, nan=1e6)) * 1e-3
    best = np.argmax(support, axis=0)
    chosen = near[best, :, np.arange(total.shape[1])].T / errors**2
    sums: Array = (chosen * np.nan_to_num(total)).sum(axis=0)
    total_weight = chosen.sum(axis=0)
    return np.where(total_weight > 0, sums / np.maximum(total_weight, 1e-30), 0.0) - known
