"""Ctrl-C and SIGTERM: they raise KeyboardInterrupt and leave a mark.

The mark is for libraries that swallow the exception or turn it into another one, as C extensions do while they are
being imported: an error after that still counts as an interruption, and the next phase of the work does not begin.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType

INTERRUPTED = threading.Event()


def install_handlers() -> None:
    """Let SIGTERM end a command as Ctrl-C does, so that temporary files are removed. Ignored signals stay ignored."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handle_signal)


def handle_signal(number: int, frame: FrameType | None) -> None:
    """Leave the mark, and raise KeyboardInterrupt."""
    del number, frame
    INTERRUPTED.set()
    raise KeyboardInterrupt


def is_interrupted() -> bool:
    """Return True if the user has asked to stop at once."""
    return INTERRUPTED.is_set()


def raise_if_interrupted() -> None:
    """Raise KeyboardInterrupt if the user has asked to stop and a library has swallowed the exception."""
    if is_interrupted():
        raise KeyboardInterrupt
