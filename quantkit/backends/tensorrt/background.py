"""Calls that TensorRT blocks in, run in a thread so that Ctrl-C still works."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from quantkit.errors import Interrupted

Result = TypeVar("Result")
POLL = 0.1


class AbandonedBuild(Interrupted):
    """The user stopped while the thread keeps running: its memory must not be freed."""


def never() -> bool:
    """Return False."""
    return False


def run_in_background(
    work: Callable[[], Result], stop: Callable[[], None], *, waits: bool, asked: Callable[[], bool] = never
) -> Result:
    """Run `work` in a thread and return what it returns, or raise what it raises.

    Ctrl-C calls `stop()`, which ends a build at its next step if TensorRT supports that (`waits`); then Interrupted is
    raised. If it does not, at a second Ctrl-C, or if the user had `asked` to stop before, AbandonedBuild is raised at
    once: the thread ends with the process, and writes nothing.
    """
    result: list[Result] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:
            failure.append(error)
        finally:
            over.set()

    over = threading.Event()  # a join that Ctrl-C interrupts makes the thread look finished
    thread = threading.Thread(target=run, name="quantkit-build", daemon=True)
    thread.start()
    interrupted = False
    while not over.is_set():
        try:
            over.wait(POLL)
        except KeyboardInterrupt:
            if interrupted or not waits or asked():
                stop()
                raise AbandonedBuild("the build was stopped", remedy="start it again; nothing was written") from None
            interrupted = True
            stop()
    if interrupted:
        raise Interrupted("the build was stopped", remedy="start it again; nothing was written")
    if failure:
        raise failure[0]
    return result[0]
