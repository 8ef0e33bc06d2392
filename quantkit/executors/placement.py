"""Where the shards of a pass run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from quantkit.errors import UsageError
from quantkit.values import check_number
from quantkit.view import quoted

RAY = "ray"
"""The Ray cluster that this machine belongs to, else one that is started on it."""
RAY_URL = "ray://"
"""Beginning of the address of another Ray cluster."""
MOST_WORKERS = 4096
MOST_GPUS = 64


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the shards of a pass run. workers: number of processes; None: one, or what the cluster has room for.

    on: `ray`, or the address of a Ray cluster such as `ray://head:10001`; None: this machine. gpus_per_worker: GPUs
    that Ray keeps for every worker, also a fraction of one.
    """

    workers: int | None = None
    on: str | None = None
    gpus_per_worker: float = 0.0

    def __post_init__(self) -> None:
        check_number("workers", self.workers, 1, MOST_WORKERS)
        check_number("gpus_per_worker", self.gpus_per_worker, 0.0, MOST_GPUS, whole=False)
        if self.on is not None and self.on != RAY and not (self.on.startswith(RAY_URL) and len(self.on) > len(RAY_URL)):
            raise UsageError(f"--on {quoted(self.on)} is no Ray cluster", remedy="use ray, or ray://HOST:10001")
        if self.gpus_per_worker and self.on is None:
            raise UsageError(
                "--gpus-per-worker is for Ray, which keeps GPUs for workers", remedy="add --on ray, or leave it out"
            )

    @property
    def divides(self) -> bool:
        """True if a pass is divided into shards; otherwise it runs as a whole in this process."""
        return self.workers is not None or self.on is not None

    def refuse_threads(self, threads: int, default: int) -> None:
        """Raise UsageError if threads other than the default are asked for on Ray, whose workers have CPUs instead."""
        if self.on is not None and threads != default:
            raise UsageError(
                f"--threads {threads} is for workers on this machine; on Ray each worker has its share of the CPUs",
                remedy="leave --threads out; fewer --workers have more CPUs each",
            )


def argument_for_workers(value: Any, placement: Placement) -> Any:
    """Return an argument as workers take it: on Ray, whose workers have another working directory, paths are absolute.

    Other texts (`module:callable`, a preset, a URL) stay.
    """
    if placement.on is None or not isinstance(value, (str, os.PathLike)) or not os.path.exists(value):
        return value
    return os.path.abspath(value)
