"""What the repairs know of an activation: figures per channel, as statistics have them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


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


def decibels(before: float, after: float) -> float:
    """How much smaller an error became, 10·log10(before/after) in dB; 0 where there was none."""
    if before <= 0.0:
        return 0.0
    return float(10.0 * np.log10(before / max(after, before * 1e-12)))
