"""States of a torchmetrics metric, sample by sample, where they are sums: any choice of samples then has a figure."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

STATE_BYTES = 256 << 20
"""More than this is not kept: the figure is then known without an interval."""


def is_torch_metric(metric: Any) -> bool:
    """Whether a metric is made of torch, and wants tensors."""
    return any(c.__module__.partition(".")[0] in ("torch", "torchmetrics", "torcheval") for c in type(metric).__mro__)


class SampleStates:
    """One row of summed states for each sample."""

    def __init__(self, metric: Any, names: tuple[str, ...]) -> None:
        self._metric, self._names = metric, names
        self._rows: list[NDArray[np.float64]] = []
        self._bytes = 0
        self._all: NDArray[np.float64] | None = None

    @classmethod
    def of(cls, metric: Any) -> SampleStates | None:
        """For a metric all of whose states are summed over processes; None for another."""
        reductions = getattr(metric, "_reductions", None)
        if not reductions or any(getattr(r, "__name__", "") != "dim_zero_sum" for r in reductions.values()):
            return None
        if any(isinstance(getattr(metric, name), list) for name in reductions):
            return None
        return cls(copy.deepcopy(metric), tuple(reductions))

    def add(self, outputs: Any, labels: Any) -> bool:
        """Take a batch apart. False where it would hold more than STATE_BYTES, or where it is no plain batch."""
        if isinstance(outputs, dict) or not hasattr(outputs, "shape"):
            return False
        for index in range(len(outputs)):
            self._metric.reset()
            self._metric.update(outputs[index : index + 1], labels[index : index + 1])
            row = np.concatenate(
                [np.ravel(np.asarray(getattr(self._metric, n).cpu(), np.float64)) for n in self._names]
            )
            self._bytes += row.nbytes
            if self._bytes > STATE_BYTES:
                return False
            self._rows.append(row)
        return True

    def resample(self, indices: NDArray[np.intp]) -> float:
        """The figure of these samples, with repetition."""
        import torch

        if self._all is None:
            self._all = np.stack(self._rows)
        total = np.bincount(indices, minlength=len(self._all)) @ self._all
        self._metric.reset()
        start = 0
        for name in self._names:
            state = getattr(self._metric, name)
            part = torch.from_numpy(total[start : start + state.numel()].copy())
            setattr(self._metric, name, part.reshape(state.shape).to(state.dtype))
            start += state.numel()
        self._metric._update_count = len(indices)
        self._metric._computed = None
        return float(self._metric.compute())
