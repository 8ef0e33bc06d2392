"""Runs of networks that are in progress, so that Ctrl-C ends them.

A library in C++ does not see Python's signals while it runs, and a Loop may have no end. It does look at a flag between
two operators; another thread raises it.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol

LEAST_PATIENCE = 3.0
"""Seconds that a run may take after the user has asked to stop, if no other took longer."""
PATIENCE = 3.0
"""The same as a multiple of the longest run."""


class StopFlag(Protocol):
    """The options of a run, whose library ends it where `terminate` is True."""

    terminate: bool


class RunsInProgress:
    """The runs of all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun: dict[int, tuple[StopFlag, float]] = {}
        self._longest = 0.0
        self._stopped = False

    def begin(self, flag: StopFlag) -> None:
        """Note that a run begins."""
        with self._lock:
            flag.terminate = self._stopped
            self._begun[id(flag)] = flag, time.monotonic()

    def end(self, flag: StopFlag) -> None:
        """Note that a run has ended."""
        with self._lock:
            _, begun = self._begun.pop(id(flag))
            if not flag.terminate:
                self._longest = max(self._longest, time.monotonic() - begun)

    def stop_overdue(self) -> None:
        """End the runs that take far longer than any did before."""
        with self._lock:
            limit = time.monotonic() - max(LEAST_PATIENCE, PATIENCE * self._longest)
            for flag, begun in self._begun.values():
                if begun < limit:
                    flag.terminate = True

    def stop(self) -> None:
        """End all runs, and every one that begins later."""
        with self._lock:
            self._stopped = True
            for flag, _ in self._begun.values():
                flag.terminate = True


RUNS = RunsInProgress()
