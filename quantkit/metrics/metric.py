"""TODO docstring."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from quantkit.values import Array


@dataclass(frozen=True, slots=True)
class Result:
    """What a metric found over all samples.

    per_sample: float64 [N], whose mean is `value`; None for a figure of the whole set. resample: the figure of these
    samples (indices, with repetition); None where the mean of `per_sample` says it, or where only `value` is known.
    samples: how many there were.
    """

    value: float
    per_sample: Array | None
    resample: Callable[[NDArray[np.intp]], float] | None
    samples: int = 0


class Metric(Protocol):
    """One metric of one model. `share`: a share 0 … 1, so that differences are in points."""

    name: str
    share: bool
    higher_is_better: bool

    def add(self, outputs: Mapping[str, Array], labels: Sequence[Any] | Array, names: Sequence[str]) -> None:
        """Take a batch: outputs [N, …] by name, N labels, N sample names. DataError, UsageError."""

    def result(self) -> Result:
        """The figure over all samples so far. DataError where there were none."""


def metric_name(name: str) -> str:
    """`top1` as people write it: `top-1`."""
    return re.sub(r"^top(\d+)(?=$|@)", r"top-\1", name)
