"""A fixture for folders of tests that start threads: no test hangs, and none leaves a thread behind."""

from __future__ import annotations

import faulthandler
import threading
import time
from collections.abc import Iterator

import pytest

WATCHDOG = 60.0
"""Seconds after which a hanging test ends the run with the stacks of all threads."""
PATIENCE = 5.0
"""Seconds that threads have to end after a test; `join` is not to be trusted after a KeyboardInterrupt."""


@pytest.fixture(autouse=True)
def nothing_hangs_and_all_threads_end() -> Iterator[None]:
    before = set(threading.enumerate())
    faulthandler.dump_traceback_later(WATCHDOG, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()
    end = time.monotonic() + PATIENCE
    while not set(threading.enumerate()) <= before and time.monotonic() < end:
        time.sleep(0.01)
    assert set(threading.enumerate()) <= before
