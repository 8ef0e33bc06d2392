"""TODO docstring."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """What a caller may want to know while a run goes on."""

    def start(self, samples: int | None, passes: int, done: int) -> None:
        """A run begins: samples a pass (None: unknown), passes, samples that a resumed run has behind it."""

    def advance(self, samples: int) -> None:
        """Samples have been counted."""

    def stopped(self) -> bool:
        """Whether the user wants the run to stop at the end of this batch."""

    def close(self) -> None:
        """The run is over."""


class NoProgress:
    """No progress."""

    def start(self, samples: int | None, passes: int, done: int) -> None:
        """Nothing."""

    def advance(self, samples: int) -> None:
        """Nothing."""

    def stopped(self) -> bool:
        """Never."""
        return False

    def close(self) -> None:
        """Nothing."""
