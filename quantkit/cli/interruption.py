"""Ctrl-C and SIGTERM: a KeyboardInterrupt, and a mark that stays.

The mark is for libraries that swallow the exception or make another one of it, as C extensions do that are just being
imported: what comes up later still counts as an interruption, and the next phase of the work does not begin.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType

INTERRUPTED = threading.Event()


def install_handlers() -> None:
    """From now on SIGTERM ends a command as Ctrl-C does, so that temporary files go. What is ignored stays ignored."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handle_signal)


def handle_signal(number: int, frame: FrameType | None) -> None:
    """The handler."""
    del number, frame
    INTERRUPTED.set()
    raise KeyboardInterrupt


def is_interrupted() -> bool:
    """Whether the user has asked to stop at once."""
    return INTERRUPTED.is_set()


def raise_if_interrupted() -> None:
    """KeyboardInterrupt where the user has asked to stop, and a library has swallowed it."""
    if is_interrupted():
        raise KeyboardInterrupt
