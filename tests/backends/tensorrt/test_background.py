"""Work in a thread: its result, its errors, and Ctrl-C while it lasts."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading

import pytest

from quantkit.backends.tensorrt.background import AbandonedBuild, run_in_background
from quantkit.errors import Interrupted

ENDED = "Interrupted: the build was stopped"
LEFT = "AbandonedBuild: the build was stopped"
"""The thread still runs."""
LIMIT = 30.0
"""Seconds that a process of its own may take."""


def nothing() -> None:
    """Stops nothing."""


@pytest.mark.parametrize("waits", [False, True])
def test_the_result_comes_back(waits: bool) -> None:
    assert run_in_background(lambda: 42, nothing, waits=waits) == 42
    assert run_in_background(lambda: None, nothing, waits=waits) is None
    assert run_in_background(threading.current_thread, nothing, waits=waits) is not threading.current_thread()


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt(), SystemExit(2), MemoryError()])
@pytest.mark.parametrize("waits", [False, True])
def test_what_goes_wrong_comes_out_as_itself(waits: bool, error: BaseException) -> None:
    def work() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        run_in_background(work, lambda: pytest.fail("nobody stopped it"), waits=waits)
    assert caught.value is error


SCRIPT = """
import signal, sys, threading, time
from quantkit.backends.tensorrt.background import run_in_background
from quantkit.errors import Interrupted

signal.signal(signal.SIGINT, signal.default_int_handler)
stopping = threading.Event()

def stop():
    print("stop")
    stopping.set()

def interrupted_after(*times):
    for seconds in times:
        timer = threading.Timer(seconds, signal.raise_signal, (signal.SIGINT,))
        timer.daemon = True
        timer.start()

{work}

try:
    run_in_background(work, stop, waits={waits}, asked=lambda: {asked})
except Interrupted as error:
    print(f"{{type(error).__name__}}: {{error.problem}}")
except BaseException as error:
    print(repr(error))
"""


def said(work: str, *, waits: bool, asked: bool = False) -> list[str]:
    """What a process prints whose work is interrupted; it has to end by itself."""
    script = SCRIPT.format(work=textwrap.dedent(work), waits=waits, asked=asked)
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split("\n")[:-1]


STOPS = """
    def work():
        stopping.wait(20)
        time.sleep(0.3)
        print("ended")
        {end}

    interrupted_after(0.3)
"""
GOES_ON = """
    def work():
        time.sleep(20)
        print("ended")

    interrupted_after({times})
"""


@pytest.mark.parametrize("end", ["return 42", "raise ValueError"])
def test_ctrl_c_waits_for_work_that_can_be_stopped(end: str) -> None:
    assert said(STOPS.format(end=end), waits=True) == ["stop", "ended", ENDED]


def test_ctrl_c_leaves_work_that_cannot_be_stopped() -> None:
    assert said(GOES_ON.format(times="0.3"), waits=False) == ["stop", LEFT]


def test_the_second_ctrl_c_leaves_work_that_should_have_stopped() -> None:
    assert said(GOES_ON.format(times="0.3, 0.8"), waits=True) == ["stop", "stop", LEFT]


@pytest.mark.parametrize("waits", [False, True])
def test_ctrl_c_ends_soon_whatever_the_work_does(waits: bool) -> None:
    assert said(GOES_ON.format(times="0.3, 0.8"), waits=waits)[-1] == LEFT


def test_the_first_ctrl_c_leaves_where_the_user_had_asked_before() -> None:
    assert said(GOES_ON.format(times="0.3"), waits=True, asked=True) == ["stop", LEFT]


def test_work_that_is_left_is_interrupted_work() -> None:
    assert issubclass(AbandonedBuild, Interrupted)
