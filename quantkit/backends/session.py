"""The seam between a calibration pass and what runs the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from quantkit.values import Array, Batch


class Runner(Protocol):
    """A network opened for running by one thread."""

    def __call__(self, feeds: Batch, /) -> Mapping[str, Array]:
        """Feeds in, every watched tensor out; the arrays are valid until the next call."""


class Session(Protocol):
    """A network opened for watching `tensors`; each thread takes its own runner."""

    tensors: tuple[str, ...]

    def runner(self) -> Runner:
        """A new runner for one thread."""


class FakeSession:
    """A pure double: a function from feeds to tensors stands for the network. For tests; needs no file and no GPU."""

    def __init__(self, function: Callable[[Batch], Mapping[str, Array]], tensors: Sequence[str]) -> None:
        self.tensors = tuple(tensors)
        self._function = function

    def runner(self) -> Runner:
        """The function itself."""
        return self._function
