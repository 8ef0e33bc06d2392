"""The step that finds the fastest engine by time, on a GPU: FP16, or INT8 with some of the nodes in float.

What it chooses is evaluated and recommended like every other engine, so that accuracy decides as well.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from quantkit.artifact import text_bytes
from quantkit.engines.bench import explain_no_gpu
from quantkit.engines.bench_builds import machine_name
from quantkit.project.inputs import RunPlan
from quantkit.project.model_step import quantizes_with_data
from quantkit.project.settings import Settings
from quantkit.project.steps import RunSteps
from quantkit.project.store import FOLDER, StepOutcome
from quantkit.quantization.options import QuantizeOptions
from quantkit.quantization.quantize import quantize
from quantkit.rules import DEFAULT_RULE
from quantkit.tuning.speed.candidate import EngineKind
from quantkit.tuning.speed.result import SpeedTuning
from quantkit.tuning.speed.search import DEFAULT
from quantkit.tuning.speed.tune import SpeedOptions, tune_speed

SPEED = "speed.json"


def tunes(settings: Settings) -> bool:
    """Return whether a run tunes by time: there is a GPU, no FP8, and neither engines nor tuning are declined."""
    if settings.quantize.types.has_fp8:
        return False
    return settings.gpu is not False and settings.build.tune_time > 0.0 and explain_no_gpu(0) is None


def tune_step(steps: RunSteps, statistics: StepOutcome) -> StepOutcome | None:
    """Find the fastest engine, and build it if it is a new one; None if there is no GPU, or if that failed."""
    plan = steps.plan
    settings = plan.settings
    if not tunes(settings):  # the engine steps note it
        return None
    options = speed_options(plan)

    def work(folder: Path) -> tuple[str, ...]:
        with TemporaryDirectory(prefix="quantkit-") as place:
            share_timing_caches(plan.output / FOLDER, Path(place))
            source = statistics.file(plan.published_names()["statistics"])
            found = tune_speed(plan.model, statistics=source, folder=place, options=options,
                phase=steps.watcher.phases)  # fmt: skip
            share_timing_caches(Path(place), plan.output / FOLDER)
            (folder / SPEED).write_bytes(text_bytes(json.dumps(found.document(), indent=2) + "\n"))
            if is_new(found):
                build_chosen(steps, found, statistics, folder)
        return (f"tuning by time: {found.verdict}", *found.notes)

    chosen = settings.quantize.model_dump(mode="json")
    about = {"model": plan.model.sha256, "statistics": statistics.digest, "machine": machine_name(0)}
    inputs = about | {"batches": options.batches, "minutes": options.minutes, "level": options.level,
        "shapes": options.shapes, "rule": settings.rule or DEFAULT_RULE, "options": chosen}  # fmt: skip
    return steps.attempt("tune", inputs, work, "the engine was not tuned by time")


def speed_options(plan: RunPlan) -> SpeedOptions:
    """Return the options of the search: those of the run's engines and of its Q/DQ model."""
    settings, chosen = plan.settings, plan.settings.quantize
    return SpeedOptions(
        batches=settings.bench.batches,
        minutes=settings.build.tune_time,
        level=settings.build.level,
        shapes=settings.build.shapes,
        quantize=QuantizeOptions(
            rule=settings.rule or DEFAULT_RULE,
            policy=chosen.policy,
            exclude=chosen.exclude,
            include=chosen.include,
            weights=chosen.weights,
            repairs=(),
        ),
    )


def is_new(found: SpeedTuning) -> bool:
    """Return whether the chosen engine is none of those that a run builds anyway."""
    return found.chosen.kind is EngineKind.QDQ and found.chosen.name != DEFAULT


def build_chosen(steps: RunSteps, found: SpeedTuning, statistics: StepOutcome, folder: Path) -> None:
    """Quantize as chosen, with rule and repairs as for the run's Q/DQ model, and build the engine.

    Raises what `quantize` and `build` raise.
    """
    from quantkit.backends.tensorrt.options import BuildOptions, Precision
    from quantkit.engines.bench_builds import shapes_for_batches
    from quantkit.engines.build import build

    plan, options, data = steps.plan, speed_options(steps.plan), steps.plan.calibration
    placement = found.chosen.placement
    model = folder / f"{plan.stem}.tuned.onnx"
    quantize(
        plan.model,
        model,
        statistics=statistics.file(plan.published_names()["statistics"]),
        data=data.source if quantizes_with_data(plan.settings) else None,
        preprocess=data.spec,
        options=QuantizeOptions(
            rule=plan.settings.rule,
            policy=placement.policy,
            exclude=(*options.quantize.exclude, *placement.kept),
            include=options.quantize.include,
            weights=options.quantize.weights,
            fp16=found.half,
            repairs=plan.settings.quantize.repairs,
            data=data.options,
            tensorrt_version=plan.version,
        ),
        phase=steps.watcher.phases,
    )
    share_timing_caches(plan.output / FOLDER, folder)
    shapes = options.shapes or shapes_for_batches(plan.model, options.batches)
    built = BuildOptions(precision=Precision.INT8, shapes=shapes, level=options.level)
    build(model, options=built, output=folder / f"{plan.stem}.tuned.engine", phase=steps.watcher.phases)
    for cache in folder.glob("timing.*.cache"):
        os.replace(cache, plan.output / FOLDER / cache.name)


def share_timing_caches(source: Path, target: Path) -> None:
    """Copy the timing caches of one folder into another."""
    for cache in source.glob("timing.*.cache"):
        shutil.copyfile(cache, target / cache.name)
