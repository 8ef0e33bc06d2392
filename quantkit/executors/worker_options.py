"""Options of a pass that workers may divide, which verbs have beside their own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from quantkit.executors.placement import Placement

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """Options of a pass that workers may divide."""

    workers: int | None = None
    """Processes that divide the pass; None runs it in this one."""
    on: str | None = None
    """A Ray cluster for the workers: `ray`, or its address."""
    gpus_per_worker: float = 0.0
    parts: str | Path | None = None
    """Folder in which the results of workers wait until all are there; the same call goes on with those that it finds.
    It stays. None: a temporary one, or one beside the output."""
    force: bool = False
    """Replace files that are there, and in `parts` shards of another run."""

    @property
    def placement(self) -> Placement:
        """Where the shards of the pass run. UsageError."""
        return Placement(self.workers, self.on, self.gpus_per_worker)

    def of_worker(self) -> Self:
        """Return the options of a worker: it runs in its own process alone, and writes no file."""
        return replace(self, workers=None, on=None, gpus_per_worker=0.0, parts=None, force=False)


class WorkerFields(TypedDict, total=False):
    """The keywords of a verb that are fields of `WorkerOptions`."""

    workers: int | None
    on: str | None
    gpus_per_worker: float
    parts: str | Path | None
    force: bool
