"""The seam between what runs a network on a device and what counts there: tensors that stay where they were made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from quantkit.gpu_counting.launches import CountingDevice
from quantkit.gpu_counting.tables import DeviceTensor
from quantkit.values import Array, Batch


class ResidentRunner(Protocol):
    """A network in the hands of one thread, whose tensors stay on the device."""

    @property
    def device(self) -> CountingDevice:
        """Where the tensors are; it waits for no run, since a run has ended when it returns."""

    def __call__(self, feeds: Batch, /) -> Mapping[str, DeviceTensor]:
        """Run once: feeds in, float inputs and every watched tensor out. They are valid until the next call.
        ModelError, BackendError."""

    def fetch(self, name: str) -> Array:
        """Return a tensor of the last run as an array."""
