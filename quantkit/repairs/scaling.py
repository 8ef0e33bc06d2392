"""Factors per channel for a group of tensors: the choice among candidates by predicted error, and the rewrite.

Dividing channel c of a group by s_c and multiplying the weights that read it by s_c changes nothing in float. What
8 bits add to the output of such a reader is predicted (uniform rounding noise, weights per output channel max|w|/127):

    activations   ρ · step²/12 · Σ_c s_c²·‖W_c‖²                    step = max_c(max|x_c|/s_c)/127
    weights       ω · Σ_o (max_c s_c|W_oc|/127)²/12 · Σ_c k·E[x_c²]/s_c²          k: entries of W_oc

ρ = 1/6: thresholds clip below max|x|, and zeros are exact (measured on ReLU networks). ω = 1 for weights rounded
to nearest, 1/6 where adaptive rounding follows (`rounding`, measured: 8 dB).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from quantkit.numerics import LEVELS
from quantkit.repairs.code_search import row_blocks
from quantkit.repairs.figures import ChannelFigures, improvement_db
from quantkit.repairs.group_search import find_group
from quantkit.repairs.half_range import fit_to_half
from quantkit.repairs.linking import ChannelGroup, ChannelLayout, Network, spread_factors

if TYPE_CHECKING:
    from quantkit.values import Array

ALPHAS = tuple(k / 8 for k in range(9))
OFFSETS = tuple(k / 8 for k in range(8))
"""Shifts before factors are rounded to powers of two."""
ACTIVATIONS = 1 / 6
ADAPTIVE = 1 / 6
BOUND = 8
"""Factors stay within 2⁻⁸ … 2⁸ of the group's middle."""
FEW = 8192
"""Least number of values per channel. A channel that is scaled to the range of its tensor has its own
maximum alone as headroom, and the next value passes it once in as many values as were seen. With exponential tails it
takes thousands until that costs less than rounding does (after a global pool, 60 images: 8 dB worse)."""
WORTH = 0.99
"""A group is rewritten if its predicted error shrinks at least to this fraction."""


@dataclass(frozen=True, slots=True)
class FactorSearch:
    """Options of the search for factors.

    exact: powers of two only. adaptive: weights are rounded adaptively afterwards. alphas: candidates for α. smooth:
    β = 1 − α only, as in SmoothQuant.
    """

    exact: bool = False
    adaptive: bool = True
    alphas: tuple[float, ...] = ALPHAS
    smooth: bool = False


@dataclass(frozen=True, slots=True)
class ScaledGroups:
    """The result of `scale_groups`. factors: first tensor of a group → factors [C] that it was divided by; gains: the
    predicted gain of that group's readers in dB; skipped: tensor → why its group stays as it is; tensors: those of all
    groups that were scaled.
    """

    factors: Mapping[str, Array]
    gains: Mapping[str, float]
    skipped: Mapping[str, str]
    tensors: frozenset[str]


def scale_groups(network: Network, channels: Mapping[str, ChannelFigures], ways: FactorSearch) -> ScaledGroups:
    """Scale the groups of all tensors in `channels` that allow it, in the network's editor."""
    factors: dict[str, Array] = {}
    gains: dict[str, float] = {}
    skipped: dict[str, str] = {}
    done: set[str] = set()
    scaled: set[str] = set()
    for tensor, figures in channels.items():
        rank = len(network.shapes.get(tensor, ()))
        if tensor in done:
            continue
        if not rank and figures.axis < 0:
            skipped[tensor] = "its number of dimensions is not known"
            continue
        group = find_group(network, tensor, ChannelLayout(figures.axis % rank if rank else figures.axis))
        done.update(group.tensors)
        reason = group.reason or scarcity_reason(group, channels) or normalize_group(group, network)
        chosen = None if reason else choose_factors(network, group, channels, ways)
        if chosen is None:
            skipped[tensor] = reason or "nothing is gained"
            continue
        fitting, reason = fit_to_half(network, group, channels, chosen[0])
        if reason:
            skipped[tensor] = reason
            continue
        factors[tensor], gains[tensor] = fitting, chosen[1]
        scale_group(network, group, fitting)
        scaled.update(group.tensors)
    return ScaledGroups(factors, gains, skipped, frozenset(scaled))


def scarcity_reason(group: ChannelGroup, channels: Mapping[str, ChannelFigures]) -> str | None:
    """Return why the maxima of a group's channels cannot be trusted."""
    least = min((channels[name].elements for name in group.tensors if name in channels), default=FEW)
    return f"only {least} values a channel were seen, {FEW} are needed" if least < FEW else None


@dataclass(frozen=True, slots=True)
class GroupReader:
    """A weighted operator that reads a group, output by output: [O, J] for the J input channels that an output sees.

    largest: max|w| over the kernel, [B, O/B, J] in B blocks, as groups of a convolution are. energy: Σw² over kernel
    and outputs, [B, J]. taps: entries of the kernel. amax, square: the figures of what it reads, [C·repeat] for B·J
    channels, and owner [C·repeat]: the group's channels.
    """

    largest: Array
    energy: Array
    taps: int
    amax: Array
    square: Array
    owner: Array

    def error(self, factors: Array, ways: FactorSearch) -> float:
        """Return the predicted error energy over signal energy when the group is divided by `factors` [C]."""
        s = factors[self.owner]
        step = (self.amax / s).max() / LEVELS
        shape = self.energy.shape
        wide, squares = s.reshape(shape), self.square.reshape(shape)
        activations = ACTIVATIONS * step**2 / 12 * (wide**2 * self.energy).sum()
        rows = np.stack([self._steps(block, each) for block, each in enumerate(wide)])
        weights = (rows.sum(axis=1) / 12 * self.taps * (squares / wide**2).sum(axis=1)).sum()
        signal = (self.energy * squares).sum()
        share = ADAPTIVE if ways.adaptive else 1.0
        return float((activations + share * weights) / signal) if signal > 0 else 0.0

    def _steps(self, block: int, factors: Array) -> Array:
        """Return the squared step of each output's weights in a block, when its channels are multiplied by factors."""
        largest = self.largest[block]
        parts = [(largest[part] * factors).max(axis=1) for part in row_blocks(largest.shape)]
        squared: Array = (np.concatenate(parts) / LEVELS) ** 2
        return squared

    def widths(self, count: int) -> Array:
        """Return max|x| of each of the group's channels over that of the tensor."""
        widths = replace_dead_channels(self.amax.reshape(count, -1).max(axis=1))
        shares: Array = widths / widths.max()
        return shares

    def heights(self, count: int) -> Array:
        """Return max|w| of each of the group's channels over that of the weight."""
        each = np.zeros(count)
        np.maximum.at(each, self.owner, self.largest.max(axis=1).reshape(-1))
        shares: Array = replace_dead_channels(each) / max(each.max(), np.finfo(float).tiny)
        return shares


def normalize_group(group: ChannelGroup, network: Network) -> str | None:
    """Count the channels of a group from its coarsest tensor on; return why its parameters do not fit, if so."""
    least = min(where.repeat for where in group.tensors.values())
    group.tensors = {name: ChannelLayout(where.axis, where.repeat / least) for name, where in group.tensors.items()}
    group.ends = [replace(end, repeat=end.repeat / least) for end in group.ends]
    if not any(end.reads for end in group.ends):
        return "no weighted operator reads it"
    count = group_channel_count(group, network)
    ones = np.ones(count)
    shapes = [network.editor.shape(network.nodes[end.node].input[end.place]) for end in group.ends]
    if any(spread_factors(end, ones, shape) is None for end, shape in zip(group.ends, shapes, strict=True)):
        return "its operators disagree about the number of channels"
    return None


def group_channel_count(group: ChannelGroup, network: Network) -> int:
    """Return the number of channels of a group, by the first weight that reads it."""
    end = next(end for end in group.ends if end.reads)
    shape = network.editor.shape(network.nodes[end.node].input[end.place])
    return int(shape[end.axis] * end.blocks / end.repeat)


def group_readers(group: ChannelGroup, network: Network, channels: Mapping[str, ChannelFigures]) -> list[GroupReader]:
    """Return the quantized readers of a group with their weights."""
    found = []
    for end in group.ends:
        figures = channels.get(end.reads or "")
        if figures is None:
            continue
        weight = network.editor.values(network.nodes[end.node].input[end.place])
        lead = np.moveaxis(weight, end.axis, 1) if end.axis != -weight.ndim else np.swapaxes(weight, 0, 1)
        largest, energy = kernel_figures(lead, end.blocks)
        owner = np.arange(len(figures.amax)) // int(end.repeat)
        taps = lead[0, 0].size
        found.append(GroupReader(largest, energy, taps, figures.amax, figures.square, owner))
    return found


def kernel_figures(weight: Array, blocks: int) -> tuple[Array, Array]:
    """Return max|w| over the kernel [B, O/B, J] and Σw² over kernel and outputs [B, J] of a weight [O, J, kernel …]."""
    outputs, inputs = weight.shape[:2]
    largest = np.empty((blocks, outputs // blocks, inputs), weight.dtype)
    energy = np.zeros((blocks, inputs))
    for block in range(blocks):
        rows = slice(block * len(largest[block]), (block + 1) * len(largest[block]))
        flat = weight[rows]
        for part in row_blocks((len(flat), flat[0].size)):
            values = flat[part].reshape(len(flat[part]), inputs, -1)
            largest[block, part] = np.abs(values).max(axis=2)
            energy[block] += np.square(values, dtype=np.float64).sum(axis=(0, 2))
    return largest, energy


def choose_factors(
    network: Network, group: ChannelGroup, channels: Mapping[str, ChannelFigures], ways: FactorSearch
) -> tuple[Array, float] | None:
    """Return the factors with the least predicted error, and the gain in dB; None if no factors are better."""
    readers = group_readers(group, network, channels)
    count = group_channel_count(group, network)
    if not readers or any(len(reader.owner) % count for reader in readers):
        return None
    before = sum(reader.error(np.ones(count), ways) for reader in readers)
    best, least = None, before
    for exponents in factor_candidates(readers, count, ways):
        factors = bounded_factors(np.round(exponents) if ways.exact else exponents)
        error = sum(reader.error(factors, ways) for reader in readers)
        if error < least:
            best, least = factors, error
    return None if best is None or least > WORTH * before else (best, improvement_db(before, least))


def factor_candidates(readers: Sequence[GroupReader], count: int, ways: FactorSearch) -> Iterator[Array]:
    """Yield exponents of factors to try: α·log max|x| − β·log max|w| for several α, β either 0 or 1 − α."""
    activations = np.log2([reader.widths(count) for reader in readers]).mean(axis=0)
    weights = np.log2([reader.heights(count) for reader in readers]).max(axis=0)
    for alpha in ways.alphas:
        for beta in (1 - alpha,) if alpha == 0 or ways.smooth else (0.0, 1 - alpha):
            for offset in OFFSETS if ways.exact else (0.0,):
                yield alpha * activations - beta * weights + offset


def replace_dead_channels(figures: Array) -> Array:
    """Return figures of channels; those of channels that are always 0 become the geometric mean of the others."""
    some = figures > 0
    middle = np.exp(np.log(figures[some]).mean()) if some.any() else 1.0
    shares: Array = np.where(some, figures, middle)
    return shares


def bounded_factors(exponents: Array) -> Array:
    """Return 2^exponents around their middle, within the bound."""
    middle = np.round(np.median(exponents))
    factors: Array = np.exp2(np.clip(exponents - middle, -BOUND, BOUND))
    return factors


def scale_group(network: Network, group: ChannelGroup, factors: Array) -> None:
    """Divide what makes the group by the factors, multiply what reads it."""
    for end in group.ends:
        node = network.nodes[end.node]
        values = network.editor.values(node.input[end.place])
        by = spread_factors(end, factors.astype(np.float32) if end.power > 0 else 1 / factors, values.shape)
        network.editor.replace(node, end.place, values * by)
