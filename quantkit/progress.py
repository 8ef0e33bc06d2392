"""The interface through which a run reports its progress and learns that it should stop."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A receiver of the progress of a run."""

    def start(self, samples: int | None, passes: int, done: int) -> None:
        """A run begins: samples per pass (None: unknown), passes, samples that a resumed run has already counted."""

    def advance(self, samples: int) -> None:
        """Samples have been counted."""

    def stopped(self) -> bool:
        """Return True if the run should stop at the end of this batch."""

    def close(self) -> None:
        """The run is over."""


class NoProgress:
    """A receiver that ignores everything."""

    def start(self, samples: int | None, passes: int, done: int) -> None:
        """Do nothing."""

    def advance(self, samples: int) -> None:
        """Do nothing."""

    def stopped(self) -> bool:
        """Return False."""
        return False

    def close(self) -> None:
        """Do nothing."""
