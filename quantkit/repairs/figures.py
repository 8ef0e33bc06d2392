"""Figures per channel: everything that the repairs know of an activation, taken from statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from quantkit.statistics import Statistics


@dataclass(frozen=True, slots=True)
class ChannelFigures:
    """Per-channel figures of a tensor: max|x|, E[x] and E[x²], float64 [C], channels along `axis` of the tensor.

    elements: how many values of each channel were seen.
    """

    axis: int
    amax: NDArray[np.float64]
    mean: NDArray[np.float64]
    square: NDArray[np.float64]
    elements: int = 1 << 31


def channel_figures(statistics: Statistics) -> dict[str, ChannelFigures]:
    """Return tensor → figures per channel, of the inputs of weighted operators."""
    found: dict[str, ChannelFigures] = {}
    for view in statistics.channels:
        if view.tensor in found:  # read along two axes: neither can be scaled
            continue
        amax = np.maximum(np.abs(view.minimum), np.abs(view.maximum)).astype(np.float64)
        found[view.tensor] = ChannelFigures(
            view.axis, amax, view.mean, view.sum_of_squares / max(view.elements, 1), view.elements
        )
    return found


def improvement_db(before: float, after: float) -> float:
    """Return how much smaller an error became, 10·log10(before/after) in dB; 0 where there was none."""
    if before <= 0.0:
        return 0.0
    return float(10.0 * np.log10(before / max(after, before * 1e-12)))
