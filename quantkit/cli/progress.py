"""Progress of a calibration on the terminal, and Ctrl-C that stops between two batches."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Bar:
    """A tqdm bar in images. The first Ctrl-C (or SIGTERM) asks to stop after this batch, the second stops at once."""

    def __init__(self, *, hidden: bool) -> None:
        self._hidden = hidden
        self._bar: Any = None
        self._stop = False
        self._previous: dict[int, Any] = {}

    def start(self, samples: int | None, passes: int, done: int) -> None:
        """Show the bar and listen to Ctrl-C."""
        from tqdm import tqdm

        total = None if samples is None else samples * passes
        self._bar = tqdm(
            total=total,
            initial=done,
            unit=" images",
            desc="calibrating",
            disable=self._hidden,
            file=sys.stderr,
            dynamic_ncols=True,
            leave=False,
        )
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._ask) for number in SIGNALS}

    def advance(self, samples: int) -> None:
        """Count images."""
        self._bar.update(samples)

    def stopped(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self._stop

    def close(self) -> None:
        """Remove the bar, and give Ctrl-C back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._bar is not None:
            self._bar.close()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._stop:
            raise KeyboardInterrupt
        self._stop = True
        print("\nfinishing this batch; Ctrl-C again stops at once", file=sys.stderr)
