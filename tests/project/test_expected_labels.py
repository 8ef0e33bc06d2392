"""Labels and metric of a run are looked for before its first step, and determine whether its last one is repeated."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from quantkit.errors import BackendError, DataError, UsageError
from quantkit.project.inputs import plan_run
from quantkit.project.settings import EvaluateSettings, Settings
from tests.evaluation.test_task_metric import data, declared

__all__ = ["data"]


def settings(model: Path, data: Path, **wanted: Any) -> Settings:
    return Settings(model=str(model), data=str(data), gpu=False, evaluate=EvaluateSettings(**wanted))


def test_a_plan_has_both_splits_the_metric_and_the_preprocessing(tmp_path: Path, data: Path) -> None:
    plan = plan_run(settings(declared(tmp_path / "a.onnx"), data / "data.yaml"))
    assert (plan.calibration.samples, plan.validation.samples) == (1, 2)
    assert plan.notes[0].startswith("preprocessing from the model's metadata: letterbox 16×16")
    assert any("boxes: 2 text files in labels/val; metric map" in note for note in plan.notes)
    assert not any("optimistic" in note for note in plan.notes)
    plan = plan_run(settings(tmp_path / "a.onnx", data / "images" / "val"))
    assert any("optimistic" in note for note in plan.notes)


def test_labels_are_part_of_the_identity(tmp_path: Path, data: Path) -> None:
    wanted = settings(declared(tmp_path / "a.onnx"), data / "data.yaml")
    plan = plan_run(wanted)
    assert plan.labels.identity == plan_run(wanted).labels.identity
    assert wanted.evaluate.is_reproducible(labels_known=True)
    (data / "labels" / "val" / "b.txt").write_text("0 0.25 0.25 0.5 0.5\n")
    assert plan.labels.identity != plan_run(wanted).labels.identity
    with pytest.raises(DataError, match="labels changed during the run"):
        plan.labels.refuse_changed()
    before = plan_run(wanted).labels.identity
    (data / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [dog, cat]\n")
    assert before != plan_run(wanted).labels.identity


def test_what_lacks_is_an_error_before_the_first_step(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = declared(tmp_path / "a.onnx")
    with pytest.raises(UsageError, match="unknown metric"):
        plan_run(settings(model, data, metrics=("maps",)))
    with pytest.raises(DataError, match="no image has its boxes in"):
        plan_run(settings(model, data, labels=str(tmp_path)))
    with pytest.raises(DataError, match="there are no boxes as labels"):
        plan_run(settings(model, other(tmp_path), metrics=("map",)))
    (data / "labels" / "val" / "b.txt").write_text("0 0.25 0.25 0.5\n")
    with pytest.raises(DataError, match=r"b\.txt, line 1"):
        plan_run(settings(model, data))
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(BackendError, match="pycocotools"):
        plan_run(settings(model, data))


def other(folder: Path) -> Path:
    """A folder with an image that has no labels."""
    (folder / "other").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "other" / "x.png")
    return folder / "other"
