"""The options that divide the work of a command among processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from quantkit.cli.arguments.groups import Decorator, grouped, offered
from quantkit.cli.arguments.parsing import NUMBER, WHOLE
from quantkit.cli.terminal.console import note
from quantkit.errors import UsageError

STOPPING = "stopping the workers; the same command goes on later"


@dataclass(frozen=True, slots=True)
class WorkerChoice:
    """A frozen value of the options that divide the work among processes."""

    workers: int | None
    on: str | None
    gpus_per_worker: float

    def keywords(self) -> dict[str, Any]:
        """Return them by the names they have in `CalibrateOptions` and its like."""
        return offered(self)

    @property
    def divides(self) -> bool:
        """True if there are workers."""
        return self.workers is not None or self.on is not None

    def work_of(self, output: Path | None, *, force: bool) -> Path | None:
        """Return the folder beside an output in which results wait; None without workers, or without an output.

        StaleError where workers were interrupted, and now there are none.
        """
        from quantkit.executors.work_folder import settle_interrupted_shards, work_path

        if output is None:
            return None
        if self.divides:
            return work_path(output)
        settle_interrupted_shards(output, force=force)
        return None

    def refuse_for_shard(self, shard: str) -> None:
        """Raise UsageError where one shard is to be divided."""
        if self.divides:
            option = "--on" if self.workers is None else "--workers"
            raise UsageError(f"{option} needs the whole run, and --shard {shard} is a part", remedy="leave one out")

    def note_gpus(self, provider: str, device: int = 0, *, quiet: bool) -> None:
        """Print a note on the GPUs that workers on this machine take in turn, if there are several."""
        from quantkit.executors.gpus import gpus_to_share

        gpus = gpus_to_share(provider, device) if self.workers and self.on is None else ()
        if len(gpus) > 1 and not quiet:
            note(f"{self.workers} workers take turns on {len(gpus)} GPUs: {', '.join(gpus)}")

    @property
    def stopping(self) -> str:
        """The note on what Ctrl-C does; empty without workers."""
        return STOPPING if self.divides else ""


WORKER_CHOICE: Mapping[str, Decorator] = {
    "workers": click.option(
        "--workers",
        metavar="N",
        type=WHOLE,
        help="Number of processes that divide the work; a killed command goes on where it was. Default: none, or as "
        "many as the cluster of --on has room for.",
    ),
    "on": click.option(
        "--on",
        metavar="ray|ray://HOST:PORT",
        help="Ray cluster that runs the workers: that of this machine, which is started if there is none (ray), or "
        "another one by its address. Default: this machine, without Ray.",
    ),
    "gpus_per_worker": click.option(
        "--gpus-per-worker",
        metavar="X",
        type=NUMBER,
        default=0,
        show_default=True,
        help="GPUs that Ray keeps for each worker, also a fraction of one.",
    ),
}
worker_choice = grouped("division", WorkerChoice, WORKER_CHOICE)
