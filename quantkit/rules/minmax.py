"""The rule `minmax`: the threshold is max|x|, as TensorRT's IInt8MinMaxCalibrator takes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantkit.rules.registry import RuleKind
from quantkit.values import Algorithm

if TYPE_CHECKING:
    from quantkit.histogram import Histogram


@dataclass(frozen=True, slots=True)
class MinMax:
    """Clip nothing: the threshold is max|x|."""

    @property
    def name(self) -> str:
        """`minmax`."""
        return "minmax"

    def threshold(self, histogram: Histogram) -> float:
        """Return max|x| over all batches, exactly."""
        return histogram.amax


KIND = RuleKind(
    "minmax",
    MinMax,
    "clips nothing",
    header=Algorithm.MIN_MAX,
    calibrators=frozenset({Algorithm.MIN_MAX}),
    rank=50,
)
