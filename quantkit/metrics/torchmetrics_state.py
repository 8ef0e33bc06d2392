"""Per-sample states of a torchmetrics metric whose states are sums: any selection of samples then has a value."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

STATE_BYTES = 256 << 20
"""States larger than this are not kept; the value then has no interval."""


def is_torch_metric(metric: Any) -> bool:
    """Return True if a metric is based on torch and takes tensors."""
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
        """Return the states of a metric that sums all of its states over processes; None for another."""
        reductions = getattr(metric, "_reductions", None)
        if not reductions or any(getattr(r, "__name__", "") != "dim_zero_sum" for r in reductions.values()):
            return None
        if any(isinstance(getattr(metric, name), list) for name in reductions):
            return None
        return cls(copy.deepcopy(metric), tuple(reductions))

    def add(self, outputs: Any, labels: Any) -> bool:
        """Add the samples of a batch one by one. False if that exceeds STATE_BYTES, or if it is not a plain batch."""
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
        """Return the value for these samples, with repetition."""
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
