"""Workers as processes on this machine.

A worker is a new Python, not a fork (onnxruntime's threads do not survive one), and not one of `multiprocessing`, which
would import the program of the user again in each of them.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Sequence
from typing import IO

from quantkit.errors import UsageError, first_line
from quantkit.executors.crew import Event, Finished, Lost, Ready
from quantkit.executors.gpus import VISIBLE
from quantkit.executors.task import ShardTask
from quantkit.executors.worker import READY
from quantkit.sharding import Shard

PROGRAM = """
import pickle, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
from quantkit.executors.worker import serve
serve()
"""


class ProcessCrew:
    """Processes on this machine, `size` of them, each with so many threads.

    gpus: each process sees one of them, that with the fewest processes; if there are none, what this process sees.
    """

    def __init__(self, task: ShardTask, size: int, threads: int, gpus: Sequence[str] = ()) -> None:
        self.size, self._gpus = size, gpus
        self._gpu_of: dict[int, str] = {}
        self._greeting = pickle.dumps(list(sys.path)) + pickled((task, threads))
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._listeners: list[threading.Thread] = []

    def __enter__(self) -> ProcessCrew:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.kill()
        for listener in self._listeners:
            listener.join()

    def hire(self) -> int:
        """Start a process."""
        number = len(self._listeners)
        words = tempfile.TemporaryFile()  # noqa: SIM115 (the listener closes it)
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=words,
            env=self._environment(number),
        )
        self._processes[number] = process
        listener = threading.Thread(target=self._listen, args=(number, process, words), daemon=True)
        self._listeners.append(listener)
        listener.start()
        self._write(process, self._greeting)
        return number

    def _environment(self, number: int) -> dict[str, str] | None:
        """Return the environment of a process, which sees one GPU; None for that of this process."""
        if not self._gpus:
            return None
        used = Counter(gpu for other, gpu in self._gpu_of.items() if self._processes[other].poll() is None)
        self._gpu_of[number] = min(self._gpus, key=lambda gpu: used[gpu])
        return {**os.environ, VISIBLE: self._gpu_of[number]}

    def assign(self, worker: int, shard: Shard) -> None:
        """Send a shard to a process."""
        self._write(self._processes[worker], pickle.dumps(shard))

    def events(self, seconds: float) -> Sequence[Event]:
        """Return what happened."""
        try:
            return [self._events.get(timeout=seconds)]
        except queue.Empty:
            return []

    def _write(self, process: subprocess.Popen[bytes], content: bytes) -> None:
        assert process.stdin is not None
        with contextlib.suppress(OSError):  # it has died, which its listener reports
            process.stdin.write(content)
            process.stdin.flush()

    def _listen(self, number: int, process: subprocess.Popen[bytes], words: IO[bytes]) -> None:
        """Report what a process says until it ends."""
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(EOFError, OSError, pickle.UnpicklingError):
            while True:
                outcome = pickle.load(process.stdout)
                self._events.put(Ready(number) if outcome == READY else Finished(number, outcome))
        code = process.wait()
        with words, process.stdout:
            self._events.put(Lost(number, describe_end(code, words)))
        with contextlib.suppress(OSError):
            process.stdin.close()


def pickled(work: object) -> bytes:
    """Return work for another process as bytes. UsageError where an argument belongs to this process alone."""
    try:
        return pickle.dumps(work)
    except Exception as error:
        raise UsageError(
            f"an argument cannot be sent to another process: {first_line(error)}",
            remedy="give model, data, labels and preprocessing as paths, or leave out --workers",
        ) from None


def describe_end(code: int, words: IO[bytes]) -> str:
    """Return how a process ended: by a signal, or by its last words."""
    if code < 0:
        try:
            return f"signal {-code} ({signal.Signals(-code).name})"
        except ValueError:
            return f"signal {-code}"
    words.seek(0)
    last = words.read().decode(errors="replace").strip().splitlines()
    return f"exit code {code}" + (f": {last[-1][:300]}" if last else "")
