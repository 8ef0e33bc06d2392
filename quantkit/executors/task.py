"""The work of a worker on a shard, and its outcome: the result, or the error as a value that travels.

An exception does not travel well: its class may need arguments that pickle does not know, and its text is made for one
process. A `WorkerError` keeps the parts of the message, and the host, and becomes the same error where it arrives.
"""

from __future__ import annotations

import platform
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from quantkit import errors
from quantkit.errors import QuantkitError
from quantkit.sharding import Shard


@dataclass(frozen=True, slots=True)
class ShardResult:
    """The result of a shard: the content of its file, and how many samples it counted."""

    content: bytes
    samples: int


class ShardTask(Protocol):
    """The work of all workers. It is pickled, and opened once by every worker."""

    @property
    def gpus(self) -> tuple[str, ...]:
        """The GPUs of this machine that workers take in turn; empty where one is named, or none is used."""

    def open(self, threads: int) -> Callable[[Shard], ShardResult]:
        """Load the network, and return a function that runs a shard on so many threads. QuantkitError."""


@dataclass(frozen=True, slots=True)
class WorkerError:
    """An error of a worker. kind: name of its class in `quantkit.errors`; empty for a bug, whose traceback it is then.

    shard: the shard that it works on; None while it loads the network.
    """

    kind: str
    headline: str
    remedy: str
    details: tuple[str, ...]
    host: str
    shard: Shard | None

    def raised(self) -> Exception:
        """Return the error, which names shard and host. MemoryError and bugs keep their kind."""
        where = f"on {self.host}" if self.shard is None else f"shard {self.shard} on {self.host}"
        if self.kind == MemoryError.__name__:
            return MemoryError(where)
        if not self.kind:
            return RuntimeError(f"bug in quantkit, {where}:\n{self.headline}")
        known: type[QuantkitError] = getattr(errors, self.kind, QuantkitError)
        return known(f"{where}: {self.headline}", remedy=self.remedy, details=self.details)


def describe_failure(error: Exception, shard: Shard | None) -> WorkerError:
    """Return an error of this process as a value."""
    host = platform.node()
    if isinstance(error, QuantkitError):
        headline = error.headline.removesuffix(":") if error.details else error.headline
        return WorkerError(type(error).__name__, headline, error.remedy, error.details, host, shard)
    if isinstance(error, MemoryError):
        return WorkerError(MemoryError.__name__, "", "", (), host, shard)
    return WorkerError("", "".join(traceback.format_exception(error)), "", (), host, shard)


class ShardServer:
    """Runs shards in the process of a worker. The network is loaded for the first one, and kept."""

    def __init__(self, task: ShardTask, threads: int) -> None:
        self._task, self._threads = task, threads
        self._collect: Callable[[Shard], ShardResult] | None = None

    def run(self, shard: Shard) -> ShardResult | WorkerError:
        """Return the result of a shard, or the error."""
        try:
            if self._collect is None:
                self._collect = self._task.open(self._threads)
        except Exception as error:
            return describe_failure(error, None)
        try:
            return self._collect(shard)
        except Exception as error:
            return describe_failure(error, shard)
