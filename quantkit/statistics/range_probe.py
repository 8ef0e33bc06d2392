"""The range probe: it takes activations as a collector does, and keeps only the first range of each tensor."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from quantkit.kernel import extremes
from quantkit.statistics.collector import as_float32
from quantkit.values import Array


class RangeProbe:
    """A counter of nothing but max|x|, batch by batch, of tensors until they have a nonzero batch.

    found: first ranges that are known already; they are kept. unsettled, count, recount, end_batch: as of `Collector`.
    """

    unsettled = False

    def __init__(self, tensors: Sequence[str], found: Mapping[str, float]) -> None:
        self.found = dict(found)
        self._all, self._lock = tuple(tensors), threading.Lock()
        self._most: dict[str, float] = {}
        self._unscalable: set[str] = set()

    @property
    def tensors(self) -> tuple[str, ...]:
        """The tensors that have been zero so far."""
        return tuple(name for name in self._all if name not in self.found and name not in self._unscalable)

    def count(self, tensor: str, values: Array, *, whole: bool) -> bool:  # noqa: ARG002 (slices or not is the same)
        """Take a slice of a batch. NaN or Inf is not refused here: such a tensor has no scale, and needs no range."""
        low, high, finite = extremes(as_float32(values))
        with self._lock:
            if not finite:
                self._unscalable.add(tensor)
            self._most[tensor] = max(self._most.get(tensor, 0.0), abs(low), abs(high)) if finite else 0.0
        return True

    def recount(self, tensor: str, values: Array) -> None:
        """Do nothing: no batch is asked for again."""

    def end_batch(self) -> tuple[str, ...]:
        """Complete a batch."""
        self.found.update({name: most for name, most in self._most.items() if most > 0.0})
        self._most.clear()
        return ()
