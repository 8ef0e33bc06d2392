"""The steps that a run announces are those that it does, in order; each counts what it goes through."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from quantkit.progress import NoWatcher, Phases, PlannedStep
from quantkit.project import map_step, step_plan
from quantkit.project.inputs import plan_run
from quantkit.project.run import run
from quantkit.project.settings import CalibrateSettings, EvaluateSettings, QuantizeSettings, Settings
from quantkit.project.step_plan import forecast_steps, plan_steps
from quantkit.project.steps import RunSteps
from quantkit.project.store import StepStore

COUNTED = ("statistics", "model", "layers", "report")
"""Steps that go through samples."""


class Recorder(NoWatcher):
    """Everything that a run reports."""

    def __init__(self) -> None:
        self.steps: list[PlannedStep] = []
        self.begun: list[str] = []
        self.ended: dict[str, bool] = {}
        self.counts: dict[str, list[tuple[int, int | None]]] = {}
        self.expected: dict[str, float] = {}
        self.phases = Phases(lambda _: None, lambda *count: self.counts[self.begun[-1]].append(count))

    def planned(self, steps: Sequence[PlannedStep]) -> None:
        self.steps += steps

    def begin(self, step: str) -> None:
        self.begun.append(step)
        self.counts[step] = []

    def forecast(self, seconds: dict[str, float]) -> None:
        self.expected |= seconds

    def end(self, step: str, seconds: float, *, reused: bool) -> None:
        assert seconds >= 0
        self.ended[step] = reused


def settings(**changes: Any) -> Settings:
    base: dict[str, Any] = {"model": "net/model.onnx", "data": "imgs", "compile": False}
    return Settings(**(base | changes))


def test_the_plan_is_what_happens_and_every_step_counts(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_plan, "EARLIEST", 0.0)
    chosen = settings(evaluate=EvaluateSettings(limit=20))
    recorder, again = Recorder(), Recorder()
    made = run(chosen, watcher=recorder)
    names = [step.name for step in recorder.steps]
    assert recorder.begun == names == [step.name for step in made.steps]
    assert recorder.ended == dict.fromkeys(names, False)
    for step, counts in recorder.counts.items():
        assert all(total is not None and 0 <= done <= total for done, total in counts), step
        assert counts or step not in COUNTED
    assert recorder.counts["report"][-1] == (20, 20)
    work = {step.name: step.work for step in recorder.steps}
    assert [work[step] for step in COUNTED] == ["60 samples", "", "60 samples", "20 samples, 3 models"]
    assert recorder.expected.keys() == {"model", "layers", "report"}
    run(chosen, watcher=again)
    assert (again.begun, again.ended) == ([], dict.fromkeys(names, True))


def test_evaluation_samples_are_spread_evenly(place: Path) -> None:
    made = run(settings(evaluate=EvaluateSettings(limit=10, layers=False), quantize=QuantizeSettings(repairs=())))
    assert made.evaluation.samples == 10
    assert [drop.count for drop in made.evaluation.candidates[0].classes] == [1] * 10, "the folders are sorted by class"


@pytest.mark.parametrize(
    ("changes", "without"),
    [
        ({"evaluate": EvaluateSettings(layers=False)}, "layers"),
        ({"calibrate": CalibrateSettings(tensorrt_version="11.0.0")}, "table"),
    ],
)
def test_what_is_left_out_is_not_announced(changes: dict[str, Any], without: str, place: Path) -> None:
    every = [step.name for step in plan_steps(plan_run(settings()))]
    names = [step.name for step in plan_steps(plan_run(settings(**changes)))]
    assert names == [name for name in every if name != without] != every


def test_a_run_whose_named_nodes_leave_one_type_is_the_run_of_this_type(place: Path) -> None:
    """Its files are called so, and one in INT8 makes a calibration table."""
    for named, kind in (({"fp8": ("*",), "weights": "mixed"}, "fp8"), ({"type": "fp8", "int8": ("*",)}, "int8")):
        plan = plan_run(settings(quantize=QuantizeSettings(**named)))
        alone = plan_run(settings(quantize=QuantizeSettings(type=kind)))
        assert plan.published_names() == alone.published_names()
        assert plan.published_names()["model"] == f"model.{kind}.onnx"
        assert plan.settings.quantize.types == alone.settings.quantize.types
        assert (plan.reads_tables, plan.notes) == (alone.reads_tables, alone.notes)
    assert plan_run(settings(quantize={"fp8": ("head/*",)})).published_names()["model"] == "model.mixed.onnx"


def test_named_nodes_without_a_kernel_stay_float_in_a_run_of_the_other_type(place: Path) -> None:
    plan = plan_run(settings(quantize=QuantizeSettings(fp8=("stem/conv",))))
    assert plan.published_names()["model"] == "model.int8.onnx"
    assert plan.reads_tables
    assert plan.settings.quantize.exclude == ("stem/conv",)
    assert [note.split(":")[0] for note in plan.notes if "FP8" in note] == ["1 operator that was to be FP8 stays float"]


def test_a_network_that_is_too_large_for_a_map_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map_step, "has_layout", lambda: True)
    monkeypatch.setattr(map_step, "MOST_NODES", 0)
    plan = plan_run(settings())
    steps = RunSteps(plan, StepStore(plan.output), NoWatcher(), plan_steps(plan))
    assert map_step.map_step(steps, cast(Any, None)) is None
    assert steps.notes[-1].endswith("quantkit map model.int8.onnx draws it")
    assert "map" not in [step.name for step in plan_steps(plan)]


def test_a_forecast_grows_with_the_work(place: Path) -> None:
    def expected(**changes: Any) -> dict[str, float]:
        return forecast_steps(plan_run(settings(**changes)), 0.01)

    usual = expected()
    assert expected(evaluate=EvaluateSettings(limit=30))["report"] == pytest.approx(usual["report"] / 2)
    assert expected(rule="mse", quantize=QuantizeSettings(repairs=()))["model"] == 0.0
    assert expected(calibrate=CalibrateSettings(limit=30))["layers"] == pytest.approx(usual["layers"] / 2)
    assert all(seconds > 0 for seconds in usual.values())
