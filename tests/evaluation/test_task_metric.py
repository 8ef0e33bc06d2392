"""The metric of a detector is taken by itself if its labels are found; what was found, and what was not, is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from PIL import Image

from quantkit.errors import DataError, UsageError
from quantkit.evaluation.compare import compare
from quantkit.evaluation.evaluate import evaluate
from quantkit.evaluation.options import EvaluateOptions
from quantkit.evaluation.task_metric import choose_task_metric
from quantkit.metrics.metric import LabelRequest
from quantkit.metrics.task import NetworkFacts, Task
from quantkit.preprocess import PRESETS
from tests.evaluation.test_evaluate import detector

HEAD = [[4.0] * 8, [6.0] * 8, [8.0] * 8, [4.0] * 8, [0.0] * 8, [0.9] + [0.0] * 7]
"""One sure box of class 1: the only object of every image."""


def declared(
    path: Path, task: str = "detect", names: str = "{0: 'cat', 1: 'dog'}", head: Any = HEAD, **more: str
) -> Path:
    """A detector with an Ultralytics export's metadata."""
    model = onnx.load(detector(path, head))
    for key, value in {"task": task, "names": names, "stride": "8", "imgsz": "[16, 16]", **more}.items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, path)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set of one training image and two images with a box each to evaluate on."""
    pytest.importorskip("pycocotools")
    for name in ("train/a", "val/b", "val/c"):
        path = tmp_path / "set" / "images" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 16), (9, 9, 9)).save(path)
        label = tmp_path / "set" / "labels" / f"{name}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("1 0.25 0.25 0.5 0.5\n")
    (tmp_path / "set" / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat, dog]\n")
    return tmp_path / "set"


def test_model_and_data_yaml_are_all_it_takes(tmp_path: Path, data: Path) -> None:
    made = evaluate(declared(tmp_path / "a.onnx"), data / "data.yaml")
    assert (made.metric, made.samples) == ("mAP50-95", 2)
    assert made.reference.metrics["mAP50-95"] == pytest.approx(1.0)
    assert made.provenance["preprocess_from"] == "the model's metadata"
    assert any("boxes: 2 text files in labels/val; metric " in note for note in made.notes)
    assert "val of data.yaml: 2 images" in made.notes


def test_classes_are_matched_by_their_names(tmp_path: Path, data: Path) -> None:
    (data / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [bird, dog, cat]\n")
    made = evaluate(declared(tmp_path / "a.onnx"), data / "data.yaml")
    assert made.reference.metrics["mAP50-95"] == pytest.approx(1.0)
    assert any("matched by name" in note for note in made.notes)
    (data / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat, llama]\n")
    with pytest.raises(DataError, match="class 'llama' is not a class of the network"):
        evaluate(declared(tmp_path / "a.onnx"), data / "data.yaml")
    (tmp_path / "names.txt").write_text("cat\nllama\n")
    made = evaluate(tmp_path / "a.onnx", data / "data.yaml", options=EvaluateOptions(classes=tmp_path / "names.txt"))
    assert made.reference.metrics["mAP50-95"] == pytest.approx(1.0)


def test_without_labels_nothing_is_forced_and_the_place_is_named(tmp_path: Path, data: Path) -> None:
    made = evaluate(declared(tmp_path / "a.onnx"), data / "data.yaml", options=EvaluateOptions(without_labels=True))
    assert made.metric is None
    (data / "labels" / "val").rename(data / "elsewhere")
    made = evaluate(tmp_path / "a.onnx", data / "data.yaml")
    assert made.metric is None
    assert any("no boxes lie beside the images: --labels FILE.json" in note for note in made.notes)
    assert "no labels: objects are compared with the reference's (v8 head, 2 classes)" in made.notes
    with pytest.raises(DataError, match="no image has its boxes in") as caught:
        evaluate(tmp_path / "a.onnx", data / "data.yaml", labels=data)
    assert "2 text files in set/elsewhere belong to the images" in str(caught.value.remedy)
    made = evaluate(tmp_path / "a.onnx", data / "data.yaml", labels=data / "elsewhere")
    assert made.reference.metrics["mAP50-95"] == pytest.approx(1.0)


def test_keypoints_are_measured_as_well(tmp_path: Path, data: Path) -> None:
    """Two keypoints at (8, 4) and (3.2, 1.6) in the image are at (4, 6) and (1.6, 4.8) in the letterboxed input."""
    rows = [4.0, 6.0, 8.0, 4.0, 0.9, 4.0, 6.0, 1.0, 1.6, 4.8, 1.0]
    head = [[value] + [0.0 if at == 4 else value] * 31 for at, value in enumerate(rows)]
    path = declared(tmp_path / "a.onnx", "pose", "{0: 'person'}", head, kpt_shape="[2, 3]")
    for name in ("b", "c"):
        (data / "labels" / "val" / f"{name}.txt").write_text("0 .25 .25 .5 .5 .25 .25 2 .1 .1 2\n")
    (data / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [person]\nkpt_shape: [2, 3]\n")
    made = evaluate(path, data / "data.yaml")
    assert made.metric == "keypoint-mAP50-95"
    assert made.reference.metrics[made.metric] == pytest.approx(1.0)
    (data / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [person]\nkpt_shape: [3, 3]\n")
    with pytest.raises(DataError, match=r"b\.txt, line 1: 11 numbers"):
        evaluate(path, data / "data.yaml")


def test_a_task_without_a_metric_is_named(tmp_path: Path, data: Path) -> None:
    made = evaluate(declared(tmp_path / "a.onnx", "obb"), data / "data.yaml")
    assert made.metric is None
    assert any(note.startswith("the metadata say obb, which no built-in metric measures") for note in made.notes)
    with pytest.raises(UsageError, match="the metadata say obb"):
        evaluate(tmp_path / "a.onnx", data / "data.yaml", labels=data / "labels" / "val")


def test_unknown_metrics_are_named_before_labels_are_looked_for(tmp_path: Path, data: Path) -> None:
    with pytest.raises(UsageError, match="unknown metric 'accuracy-ish'"):
        evaluate(declared(tmp_path / "a.onnx"), data / "data.yaml", metrics="accuracy-ish", labels=data)


@pytest.mark.parametrize(
    "change", [{"kind": "array"}, {"spec": None}, {"names": None}, {"network": NetworkFacts(Task.CLASSIFY)}]
)
def test_other_data_and_classifiers_are_left_to_the_default(change: dict[str, Any], tmp_path: Path) -> None:
    known: dict[str, Any] = {"kind": "images", "names": ["a.png"], "spec": PRESETS["yolo"]}
    network = change.pop("network", NetworkFacts(Task.DETECT))
    assert choose_task_metric(LabelRequest(tmp_path, path=None, network=network, **{**known, **change}), {}) is None


def test_evaluations_with_other_labels_are_not_compared(tmp_path: Path, data: Path) -> None:
    model = declared(tmp_path / "a.onnx")
    first = evaluate(model, data / "data.yaml")
    (data / "labels" / "val" / "c.txt").write_text("1 0.25 0.25 0.5 0.4\n")
    second = evaluate(model, data / "data.yaml")
    with pytest.raises(DataError, match="measured with different labels"):
        compare([first, second])
    assert compare([first, first]).moves[0].metric == 0


def test_the_objects_found_again_are_compared_without_labels(tmp_path: Path, data: Path) -> None:
    other = [*HEAD[:4], HEAD[5], HEAD[4]]  # the object has the other class
    model, same, changed = (declared(tmp_path / f"{n}.onnx", head=h) for n, h in enumerate((HEAD, HEAD, other)))
    first, second = (
        evaluate([model, candidate], data / "data.yaml", options=EvaluateOptions(without_labels=True, names=("a", "b")))
        for candidate in (same, changed)
    )
    assert [move.agreement for move in compare([first, second]).moves] == [None, -1.0]
