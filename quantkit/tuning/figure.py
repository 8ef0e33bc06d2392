"""The loss of a configuration, measured on one part of the data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """A frozen value with the metric of a trial and its loss, in percentage points if the metric is a fraction.

    low, high: 95 % interval of the loss. error: standard error of the loss, 0 if it is unknown.
    """

    metric: float
    drop: float
    low: float
    high: float
    error: float

    @property
    def cautious_drop(self) -> float:
        """The loss plus one standard error: on other samples the loss is below this five times out of six."""
        return self.drop + self.error
