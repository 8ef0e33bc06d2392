"""The steps of a run that build and time engines; they are skipped if there is no GPU with TensorRT."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from quantkit.artifact import canonical_json, sha256_of
from quantkit.engines.bench import BenchOptions, bench, explain_no_gpu
from quantkit.engines.bench_builds import machine_name, shapes_for_batches
from quantkit.engines.bench_result import BenchResult
from quantkit.errors import BackendError, TableError
from quantkit.export.batching import read_bench
from quantkit.project.inputs import QDQ_ENGINE, RunPlan
from quantkit.project.settings import Settings
from quantkit.project.steps import RunSteps
from quantkit.project.store import FOLDER, StepOutcome
from quantkit.project.tune_step import SPEED

if TYPE_CHECKING:
    from quantkit.backends.tensorrt.options import BuildOptions

BENCH = "bench.json"


@dataclass(frozen=True, slots=True)
class EngineStepResult:
    """The result of the engine steps.

    engines: one per precision. files: the engines and their records. bench: their speeds. digest: of all of it.
    """

    engines: tuple[Path, ...] = ()
    files: tuple[Path, ...] = ()
    bench: BenchResult | None = None
    digest: str | None = None


def why_no_engines(settings: Settings) -> str | None:
    """Return why engines are not built: "" where that was asked for, None where they are built."""
    return "" if settings.gpu is False else explain_no_gpu(0)


def engine_names(settings: Settings) -> tuple[str, ...]:
    """Return the engines to build: the precisions, and that of the Q/DQ model; none by a table with FP8."""
    without = {"int8"} if settings.quantize.types.has_fp8 else set()
    names = (name for name in settings.build.precisions if name not in without)
    return tuple(dict.fromkeys((*names, QDQ_ENGINE)))


def engine_step_name(engine: str) -> str:
    """Return the name of the step that builds an engine."""
    return f"engine-{engine}"


def engine_steps(
    steps: RunSteps, table: StepOutcome | None, model: StepOutcome, tuned: StepOutcome | None = None
) -> EngineStepResult:
    """Build and time engines if there is a GPU.

    tuned: the step that found the fastest engine by time, which may hold a new one.
    """
    settings = steps.plan.settings
    reason = why_no_engines(settings)
    if reason:
        steps.notes.append(f"no engines were built or tuned: {reason}; measure the speed of INT8 on the target GPU")
    if reason is not None:
        return EngineStepResult()
    machine = machine_name(0)
    made = [engine_step(steps, name, table, model, machine) for name in engine_names(settings)]
    built = [outcome for outcome in (*made, tuned) if outcome is not None]
    there = [path for outcome in built for path in sorted(outcome.folder.iterdir())]
    own = (SPEED, f"{steps.plan.stem}.tuned.onnx")
    files = tuple(path for path in there if ".engine" in path.name or path.name in own)
    engines = tuple(path for path in files if path.suffix == ".engine")
    if not engines:
        return EngineStepResult()
    timed = bench_step(steps, built, engines, machine)
    digest = sha256_of(canonical_json([outcome.digest for outcome in (*built, timed)]).encode())
    return EngineStepResult(engines, files, read_bench(timed.file(BENCH)), digest)


def engine_step(
    steps: RunSteps, name: str, table: StepOutcome | None, model: StepOutcome, machine: str
) -> StepOutcome | None:
    """Build one engine; None, and a note, if that is not possible. The timing cache stays among the steps for the next
    engine."""
    from quantkit.engines.build import build

    plan = steps.plan
    options = engine_options(plan, name)
    names = plan.published_names()
    scales = table if options.int8 and name != QDQ_ENGINE else None

    def work(folder: Path) -> tuple[str, ...]:
        for cache in (plan.output / FOLDER).glob("timing.*.cache"):
            shutil.copyfile(cache, folder / cache.name)
        source = steps.network_of(model) if name == QDQ_ENGINE else plan.model
        used = None if scales is None else scales.file(names["table"])
        made = build(source, options=options, table=used, output=folder / f"{plan.stem}.{name}.engine",
            phase=steps.watcher.phases)  # fmt: skip
        for cache in folder.glob("timing.*.cache"):
            os.replace(cache, plan.output / FOLDER / cache.name)
        return tuple(f"{name}: {text}" for text in (*made.warnings, *made.notes))

    about = {"machine": machine, "options": options.document(), "shapes": list(options.shapes)}
    of = {"model": model.digest if name == QDQ_ENGINE else plan.model.sha256, "table": scales and scales.digest}
    failure = f"the {name} engine was not built"
    return steps.attempt(engine_step_name(name), about | of, work, failure, (BackendError, TableError))


def engine_options(plan: RunPlan, name: str) -> BuildOptions:
    """Return the options for building an engine."""
    from quantkit.backends.tensorrt.options import BuildOptions, Precision

    chosen, batches = plan.settings.build, plan.settings.bench.batches
    return BuildOptions(
        precision=Precision.INT8 if name == QDQ_ENGINE else Precision.named(name),
        fp16=chosen.fp16,
        shapes=chosen.shapes or shapes_for_batches(plan.model, batches),
        level=chosen.level,
        retarget=True,
    )


def bench_step(steps: RunSteps, built: list[StepOutcome], engines: tuple[Path, ...], machine: str) -> StepOutcome:
    """Time the engines against each other."""
    chosen = steps.plan.settings.bench
    options = BenchOptions(batches=chosen.batches, streams=chosen.streams, seconds=chosen.seconds)

    def work(folder: Path) -> tuple[str, ...]:
        made = bench(engines, options=options, phase=steps.watcher.phases)
        # All engines, that of the Q/DQ model too, count as the one network of this run.
        subjects = tuple(replace(subject, model=steps.plan.model.sha256) for subject in made.subjects)
        made = replace(made, subjects=subjects)
        (folder / BENCH).write_text(json.dumps(asdict(made), indent=2) + "\n", encoding="utf-8")
        return made.notes

    inputs = {"engines": [o.digest for o in built], "options": chosen.model_dump(mode="json"), "machine": machine}
    return steps.execute("bench", inputs, work)
