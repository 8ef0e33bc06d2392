"""One child process, measured from outside: wall time, CPU time, peak memory.

seconds       from just before the start to the moment the process has ended
cpu_seconds   user + system time of the child and of its own children that it waited for (wait4)
mib           the larger of: the kernel's peak resident set of the child (wait4, exact), and the sum
              over the child and all of its descendants, sampled every 50 ms (so that a contestant
              that works in several processes counts them all; shared pages then count twice)

Linux only: pidfd, /proc.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MIB = 1024 * 1024
SAMPLE_MS = 50


@dataclass(frozen=True, slots=True)
class Limits:
    """A child over one of these is stopped, and the run counts as failed."""

    seconds: float
    mib: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run took; ``failure`` says in a line why it does not count, None if it does."""

    seconds: float
    cpu_seconds: float
    mib: float
    failure: str | None


@dataclass(frozen=True, slots=True)
class _Watched:
    mib: float
    stopped: str | None


def measure(command: Sequence[str], *, env: Mapping[str, str], folder: Path, limits: Limits) -> Outcome:
    """Run ``command`` in ``folder`` to its end and say what it took."""
    log = folder / "log.txt"
    with log.open("wb") as out:
        begin = time.perf_counter()
        child = subprocess.Popen(
            command,
            cwd=folder,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
        try:
            watched = _watch(child.pid, begin, limits)
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            raise
        seconds = time.perf_counter() - begin
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    failure = watched.stopped
    if failure is None and child.returncode != 0:
        failure = f"exit status {child.returncode}: {_last_line(log)}"
    mib = max(usage.ru_maxrss / 1024, watched.mib)
    return Outcome(seconds, usage.ru_utime + usage.ru_stime, mib, failure)


def _watch(pid: int, begin: float, limits: Limits) -> _Watched:
    """Wait until the process has ended (not yet reaped); stop it where it exceeds a limit."""
    peak, stopped = 0.0, None
    handle = os.pidfd_open(pid)
    try:
        ended = select.poll()
        ended.register(handle, select.POLLIN)
        while not ended.poll(SAMPLE_MS):
            now = tree_mib(pid)
            peak = max(peak, now)
            if stopped is None and now > limits.mib:
                stopped = f"stopped at {now:,.0f} MiB (limit {limits.mib:,.0f})"
            elif stopped is None and time.perf_counter() - begin > limits.seconds:
                stopped = f"stopped after {limits.seconds:,.0f} s"
            else:
                continue
            os.killpg(pid, signal.SIGKILL)
    finally:
        os.close(handle)
    return _Watched(peak, stopped)


def tree_mib(pid: int) -> float:
    """Resident memory of a process and all of its descendants at this moment."""
    page, total, todo = os.sysconf("SC_PAGE_SIZE"), 0, [str(pid)]
    while todo:
        folder = Path("/proc", todo.pop())
        try:
            total += int((folder / "statm").read_text().split()[1]) * page
            for task in (folder / "task").iterdir():
                todo += (task / "children").read_text().split()
        except OSError:  # ended while being looked at
            continue
    return total / MIB


def _last_line(log: Path) -> str:
    """The last words of a failed child, without the folders of this machine."""
    lines = log.read_text(errors="replace").strip().splitlines() or ["(no output)"]
    return re.sub(r"(?<![\w.])/(?:[\w.+-]+/)+", "", lines[-1])[:200]
