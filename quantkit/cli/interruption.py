"""Ctrl-C, SIGTERM and SIGHUP (a terminal that closes): they raise KeyboardInterrupt and leave a mark.

While a library in C++ runs a network, Python's handlers wait. So another thread reads the signals too, and ends the
runs: all of them, or, where a command finishes its batch first, those that take far too long.

The mark is for libraries that swallow the exception or turn it into another one, as C extensions do while they are
being imported: an error after that still counts as an interruption, and the next phase of the work does not begin.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType

from quantkit.backends.runs_in_progress import RUNS

INTERRUPTED = threading.Event()
FINISHING = threading.Event()
"""Set while a command, at the first signal, finishes the batch that it works on."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
POLL = 0.2


def install_handlers() -> None:
    """Let SIGTERM and SIGHUP end a command as Ctrl-C does, so that temporary files are removed.

    Ignored signals stay ignored, as under `nohup`.
    """
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handle_signal)


def handle_signal(number: int, frame: FrameType | None) -> None:
    """Leave the mark, and raise KeyboardInterrupt."""
    del number, frame
    INTERRUPTED.set()
    raise KeyboardInterrupt


def watch_signals() -> None:
    """Start the thread that ends the runs of networks at a signal."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=end_runs, args=(reader,), name="quantkit-signals", daemon=True).start()


def end_runs(reader: int) -> None:
    """Read the numbers of signals for as long as the process lives, and end runs of networks."""
    while signals := os.read(reader, 1):
        if signals[0] not in SIGNALS:
            continue
        if not FINISHING.is_set():
            RUNS.stop()
            return
        FINISHING.clear()  # a second signal ends all runs at once
        threading.Thread(target=end_overdue_runs, name="quantkit-overdue", daemon=True).start()


def end_overdue_runs() -> None:
    """End runs that take far too long, for as long as the process lives."""
    while True:
        RUNS.stop_overdue()
        time.sleep(POLL)


def is_interrupted() -> bool:
    """Return True if the user has asked to stop at once."""
    return INTERRUPTED.is_set()


def raise_if_interrupted() -> None:
    """Raise KeyboardInterrupt if the user has asked to stop and a library has swallowed the exception."""
    if is_interrupted():
        raise KeyboardInterrupt
