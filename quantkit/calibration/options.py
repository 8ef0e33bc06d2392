"""Options of a calibration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from quantkit.backends.session import (
    AUTO,
    DEFAULT_BACKEND,
    DEFAULT_PROVIDER,
    TENSORRT,
    backend_names,
    check_provider,
    split_provider,
)
from quantkit.data import DataOptions
from quantkit.data.opening import DataFields
from quantkit.errors import UsageError
from quantkit.executors.worker_options import WorkerFields, WorkerOptions
from quantkit.histogram import HistogramMode
from quantkit.rules import Rule
from quantkit.sharding import Shard
from quantkit.table import Algorithm
from quantkit.values import check_number

DEFAULT_MEMORY, GPU_MEMORY = 1 << 30, 4 << 30


@dataclass(frozen=True, slots=True)
class CalibrateOptions(WorkerOptions):
    """Options of a calibration. Defaults suit most networks."""

    data: DataOptions = field(default_factory=DataOptions)
    histogram: HistogramMode = HistogramMode.TENSORRT
    algorithm: Algorithm | None = None
    """The algorithm in the table's header; by default that of the rule."""
    tensorrt_version: str | None = None
    """For example `10.13.3`; by default the installed library's, else `DEFAULT_VERSION`."""
    backend: str = AUTO
    """One of `backend_names()`. `auto`: TensorRT if a table is written and TensorRT and a GPU are available."""
    exclude: tuple[str, ...] = ()
    """Nodes that stay float (names, patterns, operators): what only they read needs no scale, and may hold NaN."""
    provider: str = "cpu"
    max_memory: int | None = None
    """Bytes of activations held in memory at once; by default 1 GiB, and 4 GiB of a GPU."""
    resume: bool = False
    checkpoint_every: int = 16
    """Batches between checkpoints."""
    learning_curve: bool = False
    shard: Shard | None = None
    """One part of the run, whose statistics alone are collected; the output is the folder or the URL of all parts."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "histogram", histogram_mode(self.histogram))
        if self.algorithm is not None:
            object.__setattr__(self, "algorithm", Algorithm.named(self.algorithm))
        if self.backend not in backend_names():
            raise UsageError(f"unknown backend {self.backend!r}", remedy=f"use one of {', '.join(backend_names())}")
        check_provider(self.provider, DEFAULT_BACKEND if self.backend in (AUTO, TENSORRT) else self.backend)
        if self.learning_curve and self.resume:
            raise UsageError(
                "a resumed run cannot record a learning curve: its first part is over",
                remedy="leave out one of the two",
            )
        if self.shard is not None:
            object.__setattr__(self, "shard", Shard.named(self.shard))
            refuse_whole_run(self)
        if self.placement.divides and (self.learning_curve or self.resume):
            option = "--learning-curve" if self.learning_curve else "--resume"
            why = "a curve needs one pass in order" if self.learning_curve else "the same command goes on by itself"
            raise UsageError(f"{option} is not for workers: {why}", remedy=f"leave out {option}")
        check_number("checkpoint_every", self.checkpoint_every, 1)
        if self.max_memory is not None:
            check_number("max_memory", self.max_memory, 1, (1 << 63) - 1)

    @property
    def memory(self) -> int:
        """Bytes of activations held in memory at once."""
        on_gpu = split_provider(self.provider)[0] != DEFAULT_PROVIDER
        return self.max_memory or (GPU_MEMORY if on_gpu else DEFAULT_MEMORY)


def refuse_whole_run(options: CalibrateOptions) -> None:
    """Raise UsageError for options that one shard of a run cannot have."""
    given = {
        "--resume": options.resume,
        "--learning-curve": options.learning_curve,
        "--workers": options.workers is not None,
        "--on": options.on is not None,
    }
    for option in (option for option, is_given in given.items() if is_given):
        raise UsageError(f"{option} needs the whole run, and --shard {options.shard} is a part", remedy="leave it out")


def histogram_mode(text: HistogramMode | str) -> HistogramMode:
    """Return the mode of that name. UsageError."""
    try:
        return HistogramMode(text)
    except ValueError:
        known = ", ".join(mode.value for mode in HistogramMode)
        raise UsageError(f"unknown histogram {text!r}", remedy=f"use one of {known}") from None


class CalibrateFields(DataFields, WorkerFields, total=False):
    """The keywords of `calibrate` that are fields of `CalibrateOptions`."""

    rules: str | Rule | Sequence[Rule]
    """Another name of `rule`."""
    histogram: HistogramMode | str
    algorithm: Algorithm | str | None
    tensorrt_version: str | None
    backend: str
    exclude: str | Sequence[str]
    provider: str
    max_memory: int | None
    resume: bool
    checkpoint_every: int
    learning_curve: bool
    shard: str | Shard | None
