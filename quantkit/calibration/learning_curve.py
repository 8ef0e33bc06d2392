"""The learning curve: how thresholds converge with the number of samples, and how many would have been enough."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from quantkit.calibration.tables import compute_thresholds
from quantkit.rules import Rule
from quantkit.statistics import Collector
from quantkit.statistics.statistics import given_gain, with_importance

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOLERANCE = 0.05
"""A threshold has converged if it is within 5 % of its last value and stays there."""
SHARE = 0.95
"""The number of samples is enough if this fraction of the tensors has converged."""


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Median and 95th percentile over tensors of |threshold/last − 1| after `samples` samples, fraction within 5 %."""

    samples: int
    median: float
    p95: float
    settled: float


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """The points, and the smallest number of samples after which 95 % of the thresholds stay within 5 %."""

    rule: str
    points: tuple[CurvePoint, ...]
    enough: int | None


class CurveRecorder:
    """A recorder of thresholds after 1, 2, 4, 8 … batches. gains: of channels, by tensor and axis."""

    def __init__(self, rule: Rule, gains: Mapping[tuple[str, int], NDArray[np.float32]]) -> None:
        self._rule, self._gains = rule, gains
        self._taken: dict[int, dict[str, float]] = {}

    def take(self, samples: int, collector: Collector) -> None:
        """Record the thresholds after `samples` samples; called once per pass, for the tensors of that pass."""
        channels = [given_gain(view.value(), self._gains) for view in collector.views if view.elements]
        histograms = with_importance(collector.histograms(), channels, samples)
        self._taken.setdefault(samples, {}).update(compute_thresholds(histograms, self._rule))

    def curve(self, samples: int, last: Mapping[str, float]) -> LearningCurve:
        """Return the curve, relative to the thresholds after all samples."""
        points = [curve_point(count, taken, last) for count, taken in sorted(self._taken.items()) if count < samples]
        points.append(CurvePoint(samples, 0.0, 0.0, 1.0))
        enough: int | None = None
        for candidate in reversed(points[:-1]):
            if candidate.settled < SHARE:
                break
            enough = candidate.samples
        return LearningCurve(self._rule.name, tuple(points), enough)


def curve_point(samples: int, taken: Mapping[str, float], last: Mapping[str, float]) -> CurvePoint:
    """Return one point of the curve."""
    deviations = np.array([abs(taken[n] / t - 1.0) if t else float(taken[n] != 0.0) for n, t in last.items()])
    return CurvePoint(
        samples,
        float(np.median(deviations)),
        float(np.percentile(deviations, 95)),
        float((deviations <= TOLERANCE).mean()),
    )
