"""Factors of a group within the range of float16, where the network, or a part of it, is stored in that type.

A group may be divided by any common factor besides: its INT8 error stays the same. So if its factors leave the range,
they are tried with a common power of two, the nearest to 1 first. Within the range means:

    parameters        up to 65504
    activations       up to half of that: other samples reach further than those that were seen
    scales of INT8    of activations and of the rows of weights at least 2⁻¹⁴; a scale below is raised to that, or the
                      tensor stays float

A scale that was below before may stay as it is. Numbers below 2⁻¹⁴ lose digits, down to steps of 2⁻²⁴; where the scale
is normal, that is a thousandth of a step of INT8.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from quantkit.graph.operators import WEIGHTED, weight_axis
from quantkit.numerics import LEVELS
from quantkit.repairs.figures import ChannelFigures
from quantkit.repairs.linking import HALF_MAX, ChannelGroup, GroupEnd, Network, spread_factors

if TYPE_CHECKING:
    from quantkit.values import Array

BEYOND = "values would exceed the range of their type"
FINE = "its scales would be smaller than float16 has them"
LEAST_ROW = LEVELS * 2.0**-14
"""Largest |w| of a row with the least scale."""
LEAST_TENSOR = 4 * LEAST_ROW
"""The same of an activation, whose threshold may be well below its largest value."""
LOST = 2.0**-15
"""Up to this a row has no codes but 0, whatever is done to it."""
SHIFTS = (0, *(sign * k for k in range(1, 9) for sign in (1, -1)))


def fit_to_half(
    network: Network, group: ChannelGroup, channels: Mapping[str, ChannelFigures], factors: Array
) -> tuple[Array, str]:
    """Return the factors, times a power of two where they need it, and an empty text; or a text why none fits.

    factors: [C]. A group without float16 nearly always fits.
    """
    reason = half_obstacle(network, group, channels, factors)
    for shift in SHIFTS[1:] if reason else ():
        shifted = factors * 2.0**shift
        if not half_obstacle(network, group, channels, shifted):
            return shifted, ""
    return factors, reason


def half_obstacle(network: Network, group: ChannelGroup, channels: Mapping[str, ChannelFigures], factors: Array) -> str:
    """Return why a group cannot be divided by factors [C]; empty if it can."""
    reasons = (
        *(end_obstacle(network, end, factors) for end in group.ends),
        *activation_obstacles(network, group, channels, factors),
    )
    return next(filter(None, reasons), "")


def activation_obstacles(
    network: Network, group: ChannelGroup, channels: Mapping[str, ChannelFigures], factors: Array
) -> Iterator[str]:
    """Yield for each float16 activation of a group why it cannot be divided by factors; empty texts if it can."""
    for name in [name for name in group.tensors if name in channels]:
        if network.index.types.get(name) != "float16":
            continue
        amax = channels[name].amax
        before, after = amax.max(initial=0.0), (amax / np.repeat(factors, len(amax) // len(factors))).max(initial=0.0)
        yield BEYOND if after > max(HALF_MAX / 2, before) else FINE if after < min(LEAST_TENSOR, before) else ""


def end_obstacle(network: Network, end: GroupEnd, factors: Array) -> str:
    """Return why a parameter cannot take factors in its type; empty if it can."""
    node = network.nodes[end.node]
    name = node.input[end.place]
    before = network.editor.values(name)
    after = before * spread_factors(end, factors**end.power, before.shape)
    if not network.editor.fits(node, end.place, after):
        return BEYOND
    if network.editor.dtype(name) is not np.float16 or node.op_type not in WEIGHTED or end.place == 2:
        return ""
    others = tuple(d for d in range(before.ndim) if d != weight_axis(node, end.place, before.ndim))
    old, new = np.abs(before).max(axis=others), np.abs(after).max(axis=others)
    return FINE if ((old > LOST) & (new < np.minimum(old, LEAST_ROW))).any() else ""
