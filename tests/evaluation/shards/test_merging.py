"""Every figure of an evaluation that was divided into shards is that of the one that was not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from PIL import Image

import quantkit
from quantkit.cli import invoke
from quantkit.data.pictures import store
from quantkit.errors import DataError, OutputError, ShardError, StaleError, UsageError
from quantkit.evaluation.json_document import evaluation_json
from quantkit.evaluation.result import Evaluation
from tests.evaluation.scenes import test_instances as instances
from tests.evaluation.scenes import test_segmenters as segmenters
from tests.evaluation.scenes.test_detectors import ROWS, WORSE, network
from tests.support import heads
from tests.support.heads import CANVAS
from tests.support.networks import Command
from tests.support.networks import network as small_network

WIDTH, HEIGHT = CANVAS
COUNTS = (1, 2, 3, 7)


def figures(found: Evaluation) -> Any:
    """Everything that a result holds, but for the times."""
    document = json.loads(json.dumps(evaluation_json(found)))
    del document["seconds"]
    for model in document["models"]:
        del model["speed"]
    return document


def divided(models: Sequence[Any], data: Any, count: int, place: Path, **options: Any) -> Evaluation:
    """The evaluation from shards, which are made in another order than they are merged in."""
    for index in reversed(range(count)):
        quantkit.evaluate_shard(models, data, f"{index}/{count}", place, **options)
    return quantkit.evaluate(models, data, merge=place, **options)


# ── classifiers ─────────────────────────────────────────────────────────────────────────────────────────────────────


def classifier(path: Path, seed: int, classes: int = 4) -> Path:
    """A network with scores, probabilities, and the indices of the largest scores."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["shares"], axis=1),
        helper.make_node("ArgMax", ["scores"], ["best"], axis=1, keepdims=0),
    ]
    weight = np.random.default_rng(seed).normal(size=(6, classes)).astype(np.float32)
    made = small_network(nodes, {"x": ["N", 6]}, ["scores", "shares"], {"w": weight})
    made.graph.output.append(helper.make_tensor_value_info("best", TensorProto.INT64, ["N"]))
    onnx.save(made, path)
    return path


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**16),
    samples=st.integers(1, 40),
    batch=st.integers(1, 6),
    count=st.sampled_from(COUNTS),
    metrics=st.sampled_from([(), ("top1@scores", "top2@scores"), ("top1@shares",)]),
)
def test_classifiers(
    tmp_path_factory: pytest.TempPathFactory, seed: int, samples: int, batch: int, count: int, metrics: tuple[str, ...]
) -> None:
    folder = tmp_path_factory.mktemp("run")
    drawn = np.random.default_rng(seed)
    truth = {"labels": drawn.integers(0, 4, samples)} if metrics else {}
    np.savez(folder / "x.npz", x=drawn.normal(size=(samples, 6)).astype(np.float32), **truth)
    models = [classifier(folder / f"{at}.onnx", seed + at) for at in range(3)]
    options: dict[str, Any] = {"batch_size": batch, "metrics": metrics, "without_labels": not metrics}
    whole = quantkit.evaluate(models, folder / "x.npz", **options)
    found = divided(models, folder / "x.npz", min(count, -(-samples // batch)), folder / "shards", **options)
    assert figures(found) == figures(whole)


def test_scores_of_a_function_merge_and_states_of_objects_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shard_metric.py").write_text(
        "def margin(outputs, labels):\n    return outputs['scores'][range(len(labels)), labels]\n\n\n"
        "class Total:\n    def update(self, outputs, labels):\n        pass\n\n"
        "    def compute(self):\n        return 1.0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    drawn = np.random.default_rng(1)
    np.savez(tmp_path / "x.npz", x=drawn.normal(size=(20, 6)).astype(np.float32), labels=drawn.integers(0, 4, 20))
    models = [classifier(tmp_path / f"{at}.onnx", at) for at in range(2)]
    options: dict[str, Any] = {"batch_size": 3, "metrics": "shard_metric:margin"}
    whole = quantkit.evaluate(models, tmp_path / "x.npz", **options)
    assert figures(divided(models, tmp_path / "x.npz", 4, tmp_path / "run", **options)) == figures(whole)
    with pytest.raises(UsageError, match="metric Total keeps a state of its own"):
        quantkit.evaluate_shard(models, tmp_path / "x.npz", "0/2", tmp_path / "two", metrics="shard_metric:Total")


def test_models_of_a_fixed_batch_size_leave_out_the_same_samples(tmp_path: Path) -> None:
    nodes = [helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0])]
    onnx.save(small_network(nodes, {"x": [3, 6]}, ["y"]), tmp_path / "model.onnx")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32))
    whole = quantkit.evaluate(tmp_path / "model.onnx", tmp_path / "x.npy", batch_size=5)
    assert any("8 of 20 samples are left out" in note for note in whole.notes)
    found = divided([tmp_path / "model.onnx"], tmp_path / "x.npy", 4, tmp_path / "run", batch_size=5)
    assert figures(found) == figures(whole)


# ── objects and regions ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Five images with other objects in each, as YOLO's labels and as class maps."""
    for folder in ("images", "labels", "masks"):
        (tmp_path / folder).mkdir()
    for at in range(5):
        Image.new("RGB", CANVAS, (at, 2, 3)).save(tmp_path / f"images/{at}.png")
        lines = [
            f"{kind} {(x1 + x2) / 2 / WIDTH} {(y1 + y2) / 2 / HEIGHT} {(x2 - x1) / WIDTH} {(y2 - y1) / HEIGHT}"
            for x1, y1, x2, y2, _, kind in ROWS[: at % 4]
        ]
        (tmp_path / f"labels/{at}.txt").write_text("\n".join(lines), encoding="utf-8")
        label = np.broadcast_to(np.arange(WIDTH) >= WIDTH // 2 - 3 * at, (HEIGHT, WIDTH)).astype(np.uint8)
        Image.fromarray(label).save(tmp_path / f"masks/{at}.png")
    return tmp_path


def corners(folder: Path) -> dict[str, Any]:
    """Write keypoints as labels; the options that measure them."""
    for at in range(5):
        lines = []
        for row in ROWS[: at % 4]:
            x1, y1, x2, y2 = (row[0] / WIDTH, row[1] / HEIGHT, row[2] / WIDTH, row[3] / HEIGHT)
            lines.append(f"0 {(x1 + x2) / 2} {(y1 + y2) / 2} {x2 - x1} {y2 - y1} {x1} {y1} 2 {x2} {y2} 2")
        (folder / f"labels/{at}.txt").write_text("\n".join(lines), encoding="utf-8")
    (folder / "data.yaml").write_text("path: .\nval: images\nnames: [a]\nkpt_shape: [2, 3]\n", encoding="utf-8")
    return {"data": folder / "data.yaml", "metrics": "keypoint-map"}


def outlines(folder: Path) -> dict[str, Any]:
    """Write outlines as labels; the options that measure them."""
    for at in range(5):
        lines = []
        for x1, y1, x2, y2, _, kind in ROWS[: at % 4]:
            points = [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
            lines.append(f"{kind} " + " ".join(f"{x / WIDTH} {y / HEIGHT}" for x, y in points))
        (folder / f"labels/{at}.txt").write_text("\n".join(lines), encoding="utf-8")
    return {"metrics": "mask-map"}


SCENES: dict[str, tuple[Callable[[Any], Any], Callable[[Path], dict[str, Any]]]] = {
    "boxes": (heads.v8, lambda _: {"metrics": ("map", "map50")}),
    "boxes without labels": (heads.v8, lambda _: {"without_labels": True}),
    "after NMS": (heads.nms, lambda _: {}),
    "masks": (instances.masked, outlines),
    "masks without labels": (instances.masked, lambda _: {"without_labels": True}),
    "keypoints": (instances.pose, corners),
}


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("count", [2, 5])
def test_objects(name: str, count: int, scenes: Path) -> None:
    make, prepare = SCENES[name]
    models = [network(scenes / f"{n}.onnx", make(rows)) for n, rows in (("float", ROWS), ("int8", WORSE))]
    options: dict[str, Any] = {"data": scenes / "images", "preprocess": "unit", "batch_size": 1, **prepare(scenes)}
    whole = quantkit.evaluate(models, **options)
    assert whole.candidates[0].objects is not None
    found = divided(models, options.pop("data"), count, scenes / "run", **options)
    assert figures(found) == figures(whole)


@pytest.mark.parametrize("labels", [True, False])
def test_regions(labels: bool, scenes: Path) -> None:
    edges = (("float", WIDTH // 2), ("int8", WIDTH // 4))
    maps = {
        n: segmenters.scores(edge) if labels else segmenters.scores(edge)[:, 1].astype(np.int64) for n, edge in edges
    }
    models = [network(scenes / f"{n}.onnx", {"out": values}) for n, values in maps.items()]
    chosen = {"metrics": "miou", "labels": scenes / "masks"} if labels else {"without_labels": True}
    options: dict[str, Any] = {"preprocess": "unit", "batch_size": 1, **chosen}
    whole = quantkit.evaluate(models, scenes / "images", **options)
    assert whole.candidates[0].regions is not None
    assert figures(divided(models, scenes / "images", 3, scenes / "run", **options)) == figures(whole)


def test_every_image_is_decoded_once_for_all_models(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep reads the data once, whether it is divided or not; a shard decodes the first batch as well."""
    models = [network(scenes / f"{at}.onnx", heads.v8(ROWS[: 1 + at % 3])) for at in range(6)]
    decoded: list[None] = []
    real = store.decoded

    def counted(*arguments: Any) -> Any:
        decoded.append(None)
        return real(*arguments)

    monkeypatch.setattr(store, "decoded", counted)
    options: dict[str, Any] = {"preprocess": "unit", "batch_size": 1, "threads": 1, "metrics": "map"}
    quantkit.evaluate(models, scenes / "images", **options)
    assert len(decoded) == 5
    decoded.clear()
    quantkit.evaluate_shard(models, scenes / "images", "1/2", scenes / "run", **options)
    ahead = 3
    assert len(decoded) <= 3 + ahead, "three images of the shard, the first, and those that were begun after it"


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    drawn = np.random.default_rng(5)
    np.savez(tmp_path / "x.npz", x=drawn.normal(size=(20, 6)).astype(np.float32), labels=drawn.integers(0, 4, 20))
    for at in range(2):
        classifier(tmp_path / f"{at}.onnx", at)
    return tmp_path


def one_shard(folder: Path, text: str, **options: Any) -> quantkit.EvaluatedShard:
    """One shard of the evaluation of both models."""
    models, options = [folder / "0.onnx", folder / "1.onnx"], {"metrics": "top1@scores", "batch_size": 4, **options}
    return quantkit.evaluate_shard(models, options.pop("data", folder / "x.npz"), text, folder / "run", **options)


def test_a_shard_that_is_there_is_reused_or_refused(pair: Path) -> None:
    first = one_shard(pair, "1/2")
    assert (first.samples, first.reused, first.models) == (12, False, ("0.onnx", "1.onnx"))
    assert one_shard(pair, "1/2").reused
    content = Path(first.file).read_bytes()
    with pytest.raises(StaleError, match=r"is of another run: batch size \(4, and 5\)"):
        one_shard(pair, "1/2", batch_size=5)
    with pytest.raises(StaleError, match=r"is of another run: metrics \(top1@scores, and top2@scores\)"):
        one_shard(pair, "1/2", metrics="top2@scores")
    classifier(pair / "1.onnx", 7)
    with pytest.raises(StaleError, match="is of another run: models"):
        one_shard(pair, "1/2")
    assert Path(first.file).read_bytes() == content
    Path(first.file).write_bytes(content[:-9])
    with pytest.raises(StaleError, match="is damaged") as caught:
        one_shard(pair, "1/2")
    assert caught.value.remedy == "--force replaces it"
    assert not one_shard(pair, "1/2", force=True).reused
    assert Path(first.file).read_bytes() != content
    with pytest.raises(UsageError, match="cannot be divided"):
        quantkit.evaluate_shard(pair / "0.onnx", pair / "x.npz", "0/90", pair / "none", without_labels=True)
    assert not (pair / "none").exists()


def test_a_shard_with_other_labels_is_refused(scenes: Path) -> None:
    model = network(scenes / "model.onnx", heads.v8(ROWS))
    options: dict[str, Any] = {"preprocess": "unit", "batch_size": 1, "metrics": "map"}

    def again(text: str) -> bool:
        return quantkit.evaluate_shard(model, scenes / "images", text, scenes / "run", **options).reused

    assert [again("0/2"), again("1/2")] == [False, False]
    assert quantkit.evaluate(model, scenes / "images", merge=scenes / "run", **options).samples == 5
    (scenes / "labels/3.txt").write_text("0 0.5 0.5 0.1 0.1", encoding="utf-8")
    with pytest.raises(ShardError, match=r"0001-of-0002\S+ was made with other labels than those that are there now"):
        quantkit.evaluate(model, scenes / "images", merge=scenes / "run", **options)
    assert again("0/2"), "the labels of its own samples are the same"
    with pytest.raises(StaleError, match=r"0001-of-0002\S+ was made with other labels"):
        again("1/2")


def test_merging_refuses_what_does_not_fit(pair: Path) -> None:
    models, options = [pair / "0.onnx", pair / "1.onnx"], {"metrics": "top1@scores", "batch_size": 4}

    def merged(**changed: Any) -> Evaluation:
        return quantkit.evaluate(models, pair / "x.npz", merge=pair / "run", **options | changed)

    for index in range(3):
        one_shard(pair, f"{index}/3")
    assert merged().samples == 20
    with pytest.raises(ShardError, match=r"0000-of-0003\S+ is of another run: metrics"):
        merged(metrics="top2@scores")
    with pytest.raises(ShardError, match=r"is of another run: limit \(none, and 20\)"):
        merged(limit=20)
    damaged = pair / "run/0002-of-0003.evaluation.safetensors"
    kept = damaged.read_bytes()
    first = pair / "run/0000-of-0003.evaluation.safetensors"
    mine = first.read_bytes()
    first.write_bytes(kept)
    damaged.write_bytes(mine)
    with pytest.raises(ShardError, match=r"0000-of-0003\S+ holds shard 2/3, out of order"):
        merged()
    first.write_bytes(mine)
    damaged.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    with pytest.raises(ShardError, match=r"0002-of-0003\S+ is not a shard of an evaluation, or is damaged"):
        merged()
    damaged.unlink()
    with pytest.raises(ShardError, match="1 of 3 shards is missing"):
        merged()
    shutil.copy(pair / "run/0001-of-0003.evaluation.safetensors", damaged)
    with pytest.raises(ShardError, match="are both shard 1/3"):
        merged()


def test_a_sample_that_cannot_be_read_is_refused(scenes: Path) -> None:
    (scenes / "images/3.png").write_bytes(b"no image")
    model = network(scenes / "model.onnx", heads.v8(ROWS))
    options: dict[str, Any] = {"preprocess": "unit", "batch_size": 2, "skip_corrupt": True}
    with pytest.raises(DataError, match=r"^3\.png: .*leaving it out moves samples into other batches"):
        quantkit.evaluate_shard(model, scenes / "images", "1/3", scenes / "run", **options)
    assert not list((scenes / "run").glob("*.safetensors"))


def test_the_commands_divide_and_merge(
    pair: Path, quantkit_command: Command, quantkit_json: Callable[..., Any]
) -> None:
    words = ["evaluate", "0.onnx", "1.onnx", "--data", "x.npz", "--metric", "top1@scores", "--batch-size", "4"]
    done = quantkit_command(*words, "--shard", "1/2", "-o", "run")
    assert "shard   1/2, batches 2 to 4 of the run" in done.stdout
    assert "1 of 2 shards is there" in done.stdout
    assert quantkit_json(*words, "--shard", "0/2", "-o", "run")["samples"] == 8
    assert "--merge run" in quantkit_command(*words, "--shard", "0/2", "-o", "run").stdout
    quantkit_command(*words, "--merge", "run", "-o", "merged.json")
    quantkit_command(*words, "-o", "whole.json")
    merged, whole = (json.loads((pair / name).read_text()) for name in ("merged.json", "whole.json"))
    assert merged["models"][1]["drop"] == whole["models"][1]["drop"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--shard", "0/2", "-o", "run", "--html", "x.html"], "--html has no effect"),
        (["--shard", "0/2", "-o", "run", "--max-drop", "1"], "--max-drop has no effect"),
        (["--shard", "0/2", "-o", "run", "--merge", "run"], "--merge adds up all shards"),
        (["--shard", "0/2"], "--shard needs the place of all shards"),
        (["--shard", "2/2", "-o", "run"], "let the index run from 0 to 1"),
        (["-o", "s3://b/x"], "cannot write the result to s3://b/x"),
    ],
)
def test_what_a_shard_cannot_have_is_refused(words: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["evaluate", "none.onnx", "--data", "none", *words]) == 2
    assert text in capsys.readouterr().err


def test_one_shard_and_all_of_them_exclude_each_other(pair: Path) -> None:
    with pytest.raises(UsageError, match="merge= adds up all shards, and shard= makes one"):
        one_shard(pair, "0/2", merge=pair / "run")


def test_a_file_in_place_of_the_folder_is_refused(pair: Path) -> None:
    (pair / "run").write_text("a file")
    with pytest.raises(OutputError, match="run is a file"):
        one_shard(pair, "0/2")
