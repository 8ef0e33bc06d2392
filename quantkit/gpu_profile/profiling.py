"""profile: measure on this GPU what operators take in FP16 and in INT8, for `quantize --for`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TypedDict

from quantkit.artifact import check_destinations
from quantkit.errors import BackendError, StaleError, UsageError
from quantkit.gpu_profile.branch_writer import branches_model
from quantkit.gpu_profile.chain import ALONE, chain_branch
from quantkit.gpu_profile.engine_file import (
    EngineFile,
    branch_documents,
    engine_document,
    read_engines,
    write_engines,
)
from quantkit.gpu_profile.measure import LayerTimer, MeasuredEngine
from quantkit.gpu_profile.plan import BATCHES, EnginePlan, engine_plans
from quantkit.gpu_profile.profile import GpuProfile, load_profile, write_profile
from quantkit.keywords.option_fields import takes_fields
from quantkit.paths import beside, exists, given_path
from quantkit.values import check_number, checked_options
from quantkit.view import Block, RichDisplay

if TYPE_CHECKING:
    from typing_extensions import Unpack

MOST_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class ProfileOptions:
    """A frozen choice of what to measure. seconds: when to stop; the most important chains come first."""

    seconds: float = 300.0
    batches: tuple[int, ...] = BATCHES
    level: int = 1
    device: int = 0
    force: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "batches", tuple(dict.fromkeys(self.batches)))
        if not self.batches:
            raise UsageError("no batches to measure", remedy="for example --batch 1,32")
        for batch in self.batches:
            check_number("batch", batch, 1)
        check_number("seconds", self.seconds, 1.0, MOST_SECONDS, whole=False)
        check_number("level", self.level, 0, 5)
        check_number("device", self.device, 0)


class ProfileFields(TypedDict, total=False):
    """The keywords of `profile` that are fields of `ProfileOptions`."""

    seconds: float
    batches: int | Sequence[int]
    level: int
    device: int
    force: bool


@dataclass(frozen=True, slots=True)
class KindSpeed:
    """The speed-up by INT8 of one kind of operators: how many were measured, for how many it is above 1, its least,
    median and largest."""

    kind: str
    count: int
    faster: int
    least: float
    median: float
    most: float


@dataclass(frozen=True, slots=True)
class ProfiledGpu(RichDisplay):
    """A profile that was measured. files: the profile, and the engines it follows from. complete: nothing is left to
    measure. failed: chains that TensorRT did not build."""

    profile: GpuProfile
    files: tuple[Path, ...]
    engines: int
    complete: bool
    failed: tuple[str, ...]

    @property
    def kinds(self) -> tuple[KindSpeed, ...]:
        """The speed-up by kind of operator."""
        found: dict[str, list[float]] = {}
        for row in self.profile.operators:
            found.setdefault(row.kind, []).append(row.fp16 / row.int8)
        return tuple(
            KindSpeed(kind, len(s), sum(x > 1 for x in s), min(s), median(s), max(s)) for kind, s in found.items()
        )

    def _view_(self) -> Sequence[Block]:
        rows = self.profile.operators
        faster = sum(row.int8 < row.fp16 for row in rows)
        return (f"{self.profile.where}: INT8 is faster than FP16 in {faster} of {len(rows)} measured operators",)


@takes_fields(ProfileOptions)
def profile(
    output: str | os.PathLike[str],
    *,
    options: ProfileOptions | None = None,
    phase: Callable[[str], None] = lambda _: None,
    **_: Unpack[ProfileFields],
) -> ProfiledGpu:
    """Measure the GPU, and write its profile to `output` and the measured engines beside it, after every engine.

    A second call with the same output goes on where the first one stopped. Nothing else may run on the GPU meanwhile.

    BackendError (no TensorRT, no GPU), OutputError, StaleError (the files are of another GPU, TensorRT or level, or
    another file has the name of the profile).
    """
    options, target = checked_options(options, ProfileOptions), given_path(output, "output")
    raw = beside(target, f"{target.stem}.engines.json")
    check_destinations([target, raw], force=options.force, ours=lambda path: exists(raw) and is_profile(path, raw))
    started = time.monotonic()
    phase("starting TensorRT")
    timer = LayerTimer(options.level, options.device)
    file = opened_file(raw, timer, force=options.force)
    complete = False
    with timer.started():
        for plan in engine_plans(options.batches):
            if file.has(plan):
                continue
            if time.monotonic() - started > options.seconds:
                break
            phase(f"measuring {plan.words}, engine {len(file.engines) + 1}")
            for engine in measured_engines(timer, plan):
                file.engines.append(engine)
                write_engines(file, raw)
            write_profile(file.profile, target)
        else:
            complete = True
    write_profile(file.profile, target)
    failed = tuple(f"{e['branches'][0]}: {e['error']}" for e in file.engines if "error" in e)
    return ProfiledGpu(file.profile, (target, raw), len(file.engines), complete, failed)


def is_profile(path: Path, raw: Path) -> bool:
    """Return whether a file holds what a measurement wrote there. raw: the file of the measured engines."""
    try:
        _ = read_engines(path) if path == raw else load_profile(path)
    except UsageError:
        return False
    return True


def opened_file(path: Path, timer: LayerTimer, *, force: bool) -> EngineFile:
    """Return the file to go on with, or a new one. StaleError where it is of another machine."""
    machine = {
        "gpu": timer.device.name,
        "compute_capability": ".".join(map(str, timer.device.capability)),
        "tensorrt": timer.version,
        "level": timer.level,
    }
    if force or not exists(path):
        return EngineFile(machine, date.today().isoformat())
    found = read_engines(path)
    if differing := [key for key, value in machine.items() if found.machine[key] != value]:
        key = differing[0]
        raise StaleError(
            f"{path} was measured with another {key}: {found.machine[key]}, not {machine[key]}",
            remedy="another --output keeps both; --force replaces it",
        )
    return found


def measured_engines(
    timer: LayerTimer, plan: EnginePlan, inspected: Callable[[MeasuredEngine], None] = lambda _: None
) -> Iterator[dict[str, Any]]:
    """Measure one engine; where its build fails, its halves, so that one chain does not cost the others.

    inspected: called with everything that is known about an engine, of which a profile keeps little.
    """
    branches = [chain_branch(chain, form, k) for k, (chain, form) in enumerate(plan.branches)]
    alone = plan.branches[0][0].kind in ALONE
    try:
        made = timer.measure(branches_model(branches, half=timer.strong), int8=plan.quantized, alone=alone)
    except BackendError as error:
        if len(plan.branches) == 1:
            yield {
                "quantized": plan.quantized,
                "branches": branch_documents(plan),
                "error": error.problem,
                "layers": [],
            }
            return
        middle = len(plan.branches) // 2
        for half in (plan.branches[:middle], plan.branches[middle:]):
            yield from measured_engines(timer, EnginePlan(half, plan.quantized), inspected)
        return
    inspected(made)
    yield engine_document(plan, made)
