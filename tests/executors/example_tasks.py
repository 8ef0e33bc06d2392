"""Tasks for workers, in a module that they can import."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from quantkit.errors import DataError
from quantkit.executors import ShardResult
from quantkit.executors.gpus import VISIBLE
from quantkit.sharding import Shard


@dataclass(frozen=True)
class Naming:
    """A shard's result is its text. folder: gets a file for every time that a network is loaded, or a shard begins."""

    folder: Path
    seconds: float = 0.0
    deadly: tuple[int, ...] = ()
    """Shards that end their worker the first time."""
    fatal: int | None = None
    """A shard that always ends its worker."""
    wrong: int | None = None
    bug: int | None = None
    gpus: tuple[str, ...] = ()
    together: int = 0
    """Shards wait until so many workers have loaded the network."""

    def open(self, threads: int) -> Callable[[Shard], ShardResult]:
        (self.folder / f"opened-{os.getpid()}-{threads}").touch()
        return self.run

    def run(self, shard: Shard) -> ShardResult:
        mark = self.folder / f"begun-{shard.index}"
        first = not mark.exists()
        mark.write_text(str(os.getpid()))
        time.sleep(self.seconds)
        latest = time.monotonic() + 60
        while len(list(self.folder.glob("opened-*"))) < self.together and time.monotonic() < latest:
            time.sleep(0.01)
        if shard.index == self.fatal or (first and shard.index in self.deadly):
            os.kill(os.getpid(), signal.SIGKILL)
        if shard.index == self.wrong:
            raise DataError("img_7.png cannot be read", remedy="fix it", details=("img_7.png: truncated",))
        if shard.index == self.bug:
            raise ZeroDivisionError("oh")
        sys.stdout.write("words of the user\n")
        if self.gpus:
            return ShardResult(os.environ[VISIBLE].encode(), 2)
        return ShardResult(str(shard).encode(), 2)


@dataclass(frozen=True)
class Failing:
    """A network that cannot be loaded."""

    gpus: tuple[str, ...] = ()

    def open(self, _threads: int) -> Callable[[Shard], ShardResult]:
        raise DataError("no such file: model.onnx", remedy="check the path")
