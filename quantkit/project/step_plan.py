"""The steps that a run will go through, and how long they will take, by the speed of the first batches.

A new step is a line in `plan_steps`, and a term in `forecast_steps` if it takes long.
"""

from __future__ import annotations

import time

from quantkit.progress import PhaseProgress, PlannedStep
from quantkit.project.compile_step import compiles
from quantkit.project.engine_steps import engine_names, engine_step_name, why_no_engines
from quantkit.project.inputs import DataSource, RunPlan
from quantkit.project.map_step import draws_map
from quantkit.project.model_step import quantizes_with_data
from quantkit.project.steps import RunSteps
from quantkit.project.tune_step import tunes
from quantkit.qdq.weighted_operators import weighted_operators
from quantkit.report.wording import count_noun
from quantkit.sensitivity.options import SAMPLES

EARLIEST = 1.0
"""Seconds of work before the first forecast."""
MODEL_PASSES, LAYERS_PACE, REPORT_PACE = 9.0, 1.2, 0.9


def plan_steps(plan: RunPlan) -> tuple[PlannedStep, ...]:
    """Return the steps of a run in order, with what each goes through."""
    settings = plan.settings
    engines = () if why_no_engines(settings) is not None else engine_names(settings)
    models = count_noun(count_models(plan, engines), "model")
    few = min(SAMPLES, plan.calibration.samples or SAMPLES)
    layers = PlannedStep("layers", count_noun(few, "sample"))
    return (
        PlannedStep("statistics", describe_samples(plan.calibration)),
        *([PlannedStep("table")] if plan.reads_tables else []),
        PlannedStep("model"),
        *([PlannedStep("compile", "TensorRT-RTX")] if compiles(settings) else []),
        *([PlannedStep("tune", f"about {settings.build.tune_time:g} min")] if tunes(settings) else []),
        *(PlannedStep(engine_step_name(name)) for name in engines),
        *([PlannedStep("bench", count_noun(len(engines), "engine"))] if engines else []),
        *([layers] if settings.evaluate.layers else []),
        *([PlannedStep("map")] if draws_map(plan) else []),
        PlannedStep("report", f"{describe_samples(plan.validation)}, {models}"),
    )


def count_models(plan: RunPlan, engines: tuple[str, ...]) -> int:
    """Return the number of models that are evaluated: the float and the Q/DQ model, and the table or engines."""
    return 2 + (len(engines) if engines else int(plan.reads_tables))


def describe_samples(data: DataSource) -> str:
    """Return `512 samples`, or where they come from if their number is not known."""
    return data.source if data.samples is None else count_noun(data.samples, "sample")


def forecast_steps(plan: RunPlan, pace: float) -> dict[str, float]:
    """Return step → seconds, roughly, for the steps that run the network; those of a GPU are left out.

    pace: seconds for a sample of the statistics pass, which decodes it, runs the network and looks at every tensor. The
    factors were measured with ResNet-20 and MobileNetV2; the figures are rough, within a factor of two or three.
    """
    settings = plan.settings
    calibration = plan.calibration.samples
    found: dict[str, float] = {}
    if calibration is not None:
        passes = MODEL_PASSES if quantizes_with_data(settings) else 0.0
        found["model"] = pace * (passes * calibration)
        runs = 2 * len(weighted_operators(plan.model.proto)) + 2
        found["layers"] = pace * LAYERS_PACE * runs * min(SAMPLES, calibration)
    if plan.validation.samples is not None:
        found["report"] = pace * REPORT_PACE * plan.validation.samples * count_models(plan, ())
    return found


class PassForecast(PhaseProgress):
    """The progress of the statistics pass, whose first batches tell how long the other steps will take."""

    def __init__(self, steps: RunSteps) -> None:
        super().__init__(steps.watcher.phases, "statistics of all tensors")
        self._steps = steps
        self._started = 0.0
        self._seen = 0

    def start(self, samples: int | None, passes: int, done: int) -> None:
        """Begin to measure."""
        super().start(samples, passes, done)
        self._started = time.monotonic()

    def advance(self, samples: int) -> None:
        """Count samples, and forecast the other steps by their pace."""
        super().advance(samples)
        self._seen += samples
        spent = time.monotonic() - self._started
        if spent >= EARLIEST:
            self._steps.watcher.forecast(forecast_steps(self._steps.plan, spent / self._seen))
