"""Options of a pass whose shards add up, which verbs have beside their own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from quantkit.errors import UsageError
from quantkit.executors.worker_options import WorkerFields, WorkerOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class TotalsOptions(WorkerOptions):
    """Options of a pass whose shards add up."""

    merge: str | Path | None = None
    """The folder or the URL of all shards of this pass, which are added up instead of running it."""

    def __post_init__(self) -> None:
        if self.placement.divides and self.merge is not None:
            raise UsageError("--merge adds up shards that are there, and needs no workers", remedy="leave out one")


class TotalsFields(WorkerFields, total=False):
    """The keywords of a verb that are fields of `TotalsOptions`."""

    merge: str | Path | None
