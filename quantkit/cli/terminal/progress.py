"""Progress on the terminal: a bar that Ctrl-C stops between two batches, and a spinner with a phase."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from quantkit.cli.interruption import FINISHING, SIGNALS, raise_if_interrupted
from quantkit.cli.terminal.bars import SIGNS, draw_bar, format_duration
from quantkit.cli.terminal.console import note, redraw_block, terminal_size
from quantkit.progress import Phases


class ProgressBar:
    """A tqdm bar in images. The first Ctrl-C (or SIGTERM) stops the run after this batch, the second stops at once."""

    def __init__(
        self,
        *,
        hidden: bool,
        about: str = "calibrating",
        then: Callable[[], object] = lambda: None,
        stopping: str = "",
    ) -> None:
        """then: called when the bar is removed, for example to show a spinner. stopping: what the first Ctrl-C does;
        empty if the batch is finished."""
        self._hidden, self._about, self._then = hidden, about, then
        self._stopping = stopping or "finishing this batch; press Ctrl-C again to stop at once"
        self._bar: Any = None
        self._stop = False
        self._previous: dict[int, Any] = {}

    def start(self, samples: int | None, passes: int, done: int) -> None:
        """Show the bar, and handle Ctrl-C."""
        from tqdm import tqdm

        raise_if_interrupted()
        total = None if samples is None else samples * passes
        self._bar = tqdm(
            total=total,
            initial=done,
            unit=" images",
            desc=self._about,
            disable=self._hidden,
            file=sys.stderr,
            dynamic_ncols=True,
            leave=False,
        )
        if threading.current_thread() is threading.main_thread():
            FINISHING.set()
            self._previous = {number: signal.signal(number, self._handle_signal) for number in SIGNALS}

    def advance(self, samples: int) -> None:
        """Count images."""
        self._bar.update(samples)

    def stopped(self) -> bool:
        """Return True after Ctrl-C."""
        return self._stop

    def close(self) -> None:
        """Remove the bar, and restore the handlers of Ctrl-C."""
        FINISHING.clear()
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._bar is not None:
            self._bar.close()
        self._then()

    def _handle_signal(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._stop:
            raise KeyboardInterrupt
        self._stop = True
        note("")
        note(self._stopping)


class Spinner:
    """A line with a turning sign, the current phase, its count, and the seconds since the start."""

    def __init__(self, *, hidden: bool) -> None:
        self._hidden = hidden
        self._text = ""
        self._count: tuple[int, int | None] = 0, None
        self._begun = time.monotonic()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self.phases = Phases(self.phase, self.count)

    def phase(self, text: str) -> None:
        """Show the name of the phase that begins."""
        raise_if_interrupted()
        self._text, self._count, self._begun = text, (0, None), time.monotonic()

    def count(self, done: int, total: int | None) -> None:
        """Show how much of the phase is done."""
        self._count = done, total

    def __enter__(self) -> Spinner:
        if not self._hidden:
            self._thread = threading.Thread(target=self._turn, name="quantkit-spinner", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            redraw_block([])

    def _turn(self) -> None:
        started, turns = time.monotonic(), 0
        while not self._over.wait(0.1):
            now = time.monotonic()
            line = f"{SIGNS[turns % len(SIGNS)]} {self._text}{', ' if self._text else ''}{now - started:.0f} s"
            done, total = self._count
            if done and total:
                left = format_duration((now - self._begun) * max(total - done, 0) / done)
                line += f"  {draw_bar(done / total, 16)} {done:,}/{total:,}, {left} left"
            redraw_block([line[: terminal_size(sys.stderr).columns]])
            turns += 1
