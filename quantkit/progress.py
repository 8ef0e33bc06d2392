"""The interfaces through which work reports its progress and learns that it should stop.

Progress      of one pass over samples: calibrate, evaluate
Phases        of a verb with several phases, each with a count where there is something to count: quantize, layers
RunWatcher    of a run with several steps
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Phases:
    """A receiver of the phases of a verb.

    begin: called with the name of a phase. count: called with how much of the phase is done, and its total (None: it is
    not known).
    """

    begin: Callable[[str], None] = lambda _: None
    count: Callable[[int, int | None], None] = lambda _, __: None

    def __call__(self, name: str) -> None:
        """A phase begins."""
        self.begin(name)


def as_phases(phase: Callable[[str], None]) -> Phases:
    """Return a receiver of phases; a plain function gets their names alone."""
    return phase if isinstance(phase, Phases) else Phases(phase)


class PhaseProgress(NoProgress):
    """A receiver of samples that counts them as those of a phase."""

    def __init__(self, phases: Phases, then: str = "") -> None:
        """then: name of the phase that follows the pass."""
        self._phases, self._then = phases, then
        self._done = 0
        self._total: int | None = None

    def start(self, samples: int | None, passes: int, done: int) -> None:
        """Count from `done`."""
        self._done, self._total = done, None if samples is None else samples * passes
        self._phases.count(self._done, self._total)

    def advance(self, samples: int) -> None:
        """Count samples."""
        self._done += samples
        self._phases.count(self._done, self._total)

    def close(self) -> None:
        """Begin what follows."""
        if self._then:
            self._phases(self._then)


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step of a run before it begins. work: what it goes through, such as `512 images`; "" for nothing to count."""

    name: str
    work: str = ""


class RunWatcher(Protocol):
    """A receiver of the progress of a run with several steps."""

    phases: Phases
    """Receives the phases of the step that runs."""

    def planned(self, steps: Sequence[PlannedStep]) -> None:
        """These steps will be done, in this order."""

    def begin(self, step: str) -> None:
        """A step begins; not called for one that is reused."""

    def forecast(self, seconds: dict[str, float]) -> None:
        """Steps that have not begun take about so long: name → seconds."""

    def end(self, step: str, seconds: float, *, reused: bool) -> None:
        """A step is done, or its earlier outcome is reused."""


class NoWatcher:
    """A receiver that ignores everything."""

    phases = Phases()

    def planned(self, steps: Sequence[PlannedStep]) -> None:
        """Do nothing."""

    def begin(self, step: str) -> None:
        """Do nothing."""

    def forecast(self, seconds: dict[str, float]) -> None:
        """Do nothing."""

    def end(self, step: str, seconds: float, *, reused: bool) -> None:
        """Do nothing."""
