"""A session whose tensors stay on a device, which is this process: a function takes the place of the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from quantkit.backends.session import FakeSession
from quantkit.gpu_counting.tables import TYPES, DeviceTensor
from quantkit.values import Array, Batch
from tests.gpu_counting.twin import TwinDevice, as_device_tensor


class TwinRunner:
    """A runner that overwrites its tensors in the next run, as a GPU's does."""

    def __init__(self, function: Callable[[Batch], Mapping[str, Array]]) -> None:
        self.device = TwinDevice()
        self._function = function
        self._arrays: dict[str, Array] = {}

    def __call__(self, feeds: Batch) -> Mapping[str, DeviceTensor]:
        for array in self._arrays.values():
            array[...] = 99
        arrays = {**feeds, **self._function(feeds)}
        self._arrays = {n: np.array(a, order="C") for n, a in arrays.items() if a.dtype.name in TYPES}
        return {name: as_device_tensor(array) for name, array in self._arrays.items()}

    def fetch(self, name: str) -> Array:
        return self._arrays[name]


class ResidentSession(FakeSession):
    """A session with both kinds of runners."""

    def __init__(self, function: Callable[[Batch], Mapping[str, Array]], tensors: Sequence[str]) -> None:
        super().__init__(function, tensors)
        self._network = function

    def resident(self) -> TwinRunner:  # type: ignore[override]
        return TwinRunner(self._network)
