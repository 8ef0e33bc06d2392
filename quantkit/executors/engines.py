"""The choice of the engine: processes on this machine, or actors of Ray."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from quantkit.executors.placement import Placement
from quantkit.executors.processes import ProcessCrew
from quantkit.executors.task import ShardTask


def open_crew(task: ShardTask, placement: Placement, threads: int) -> AbstractContextManager[Any]:
    """Return the workers of a placement, as a context manager of a `Crew`. BackendError, UsageError.

    threads: of all workers on this machine together, at least one each.
    """
    if placement.on is None:
        size = placement.workers or 1
        return ProcessCrew(task, size, max(1, threads // size), task.gpus)
    from quantkit.executors.actors import RayCrew

    return RayCrew(task, placement)
