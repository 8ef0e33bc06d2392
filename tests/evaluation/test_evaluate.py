"""evaluate and compare end to end: results against a plain loop, every kind of data, and each error by name."""

from __future__ import annotations

import json
import math
import re
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from PIL import Image

import quantkit
from quantkit.cli import invoke
from quantkit.data import DataOptions
from quantkit.errors import BackendError, DataError, StaleError, UsageError
from quantkit.evaluation.compare import compare
from quantkit.evaluation.evaluate import evaluate
from quantkit.evaluation.json_document import evaluation_json, parse_evaluation
from quantkit.evaluation.options import EvaluateOptions
from quantkit.evaluation.result import ChangedSample, Evaluation, ModelKind
from tests.support.networks import BUNDLED, network
from tests.support.qdq import write_gated_block

RANDOM = np.random.default_rng(3)
CLASSES = 4
# multiples of 1/64: no sum is rounded, so that every kernel and every size of a batch gives the same scores
WEIGHT = np.round(64 * RANDOM.standard_normal((6, CLASSES))).astype(np.float32) / 64
X = np.round(64 * RANDOM.standard_normal((50, 6))).astype(np.float32) / 64
Y = (X @ WEIGHT).argmax(axis=1)
Y[:5] = (Y[:5] + 1) % CLASSES


def linear(path: Path, weight: Any = WEIGHT, batch: Any = "N", output: str = "scores") -> Path:
    """A network of one matrix product."""
    nodes = [helper.make_node("MatMul", ["x", "w"], [output], "product")]
    onnx.save(network(nodes, {"x": [batch, 6]}, [output], {"w": weight}), path)
    return path


def coarse(path: Path, batch: Any = "N") -> Path:
    """The same with rounded weights."""
    return linear(path, np.round(WEIGHT), batch)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    np.savez(tmp_path / "val.npz", x=X, labels=Y)
    return tmp_path / "val.npz"


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    return [linear(tmp_path / "float.onnx"), coarse(tmp_path / "coarse.onnx")]


def plain(path: Path, x: Any = X) -> Any:
    """Outputs by onnxruntime alone."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def test_results_equal_those_of_a_plain_loop(pair: list[Path], data: Path) -> None:
    made = evaluate(pair, data)
    first, second = (plain(path).astype(np.float64) for path in pair)
    right = [(scores.argmax(axis=1) == Y) for scores in (first, second)]
    reference, candidate = made.models
    assert made.samples == 50
    assert made.metric == "top1"
    assert reference.metrics["top1"] == right[0].mean() == 0.9
    assert candidate.metrics["top1"] == right[1].mean()
    assert candidate.difference is not None
    assert candidate.difference.value == pytest.approx(100 * (right[0].mean() - right[1].mean()))
    assert candidate.difference.low <= candidate.difference.value <= candidate.difference.high
    assert candidate.difference.worse == (right[0] & ~right[1]).sum()
    assert candidate.agreement == (first.argmax(axis=1) == second.argmax(axis=1)).mean()
    (output,) = candidate.outputs
    noise = ((first - second) ** 2).sum()
    assert output.sqnr_db == pytest.approx(10 * math.log10((first**2).sum() / noise))
    assert candidate.changed_samples == (first.argmax(axis=1) != second.argmax(axis=1)).sum() > 0
    assert sum(c.count for c in candidate.confusions) == candidate.changed_samples
    assert sum(c.count for c in candidate.classes) == 50
    assert reference.difference is None
    assert reference.outputs == ()
    assert len(made.verdict) == 1
    assert all(model.speed is not None and model.speed.samples_per_second > 0 for model in made.models)


@pytest.mark.parametrize("batch_size", [1, 7, 50])
def test_batches_and_threads_change_nothing(pair: list[Path], data: Path, batch_size: int) -> None:
    whole, cut = (
        evaluate(pair, data, options=EvaluateOptions(data=DataOptions(batch_size=size))) for size in (32, batch_size)
    )
    assert [m.metrics for m in whole.models] == [m.metrics for m in cut.models]
    assert whole.candidates[0].difference == cut.candidates[0].difference
    assert whole.candidates[0].changed == cut.candidates[0].changed
    assert whole.candidates[0].outputs[0].sqnr_db == pytest.approx(cut.candidates[0].outputs[0].sqnr_db)


@pytest.mark.parametrize("size", [1, 8, 64])
def test_a_model_that_is_fixed_to_a_batch_sees_every_sample(tmp_path: Path, data: Path, size: int) -> None:
    free, fixed = linear(tmp_path / "free.onnx"), linear(tmp_path / "fixed.onnx", batch=size)
    for models in ([free, fixed], [fixed, free], [fixed]):
        made = evaluate(models, data)
        assert made.samples == 50
        assert all(model.metrics["top1"] == 0.9 for model in made.models)
        assert all(model.agreement == 1.0 for model in made.candidates)


@pytest.mark.parametrize(("size", "samples"), [(1, 50), (8, 48)])
def test_a_batch_whose_outputs_have_no_samples_is_evaluated_whole(
    tmp_path: Path, data: Path, size: int, samples: int
) -> None:
    nodes = [helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0)]
    paths = [tmp_path / f"{name}.onnx" for name in "ab"]
    for path in paths:
        onnx.save(network(nodes, {"x": [size, 6]}, ["mean"]), path)
    made = evaluate(paths, data, options=EvaluateOptions(without_labels=True))
    assert made.samples == samples
    assert made.candidates[0].outputs[0].sqnr_db == math.inf
    assert any("2 of 50 samples are left out" in note for note in made.notes) == (size == 8)


def test_qdq_models_and_tables_have_their_kinds(tmp_path: Path) -> None:
    folder = shutil.copytree(
        BUNDLED, tmp_path / "net", ignore=shutil.ignore_patterns("*.int8*", "*.calib*", "*.stats*")
    )
    model = folder / "model.onnx"
    made = quantkit.calibrate(
        model, folder / "images", output=folder / "model.calib", rules="entropy",
        options=quantkit.CalibrateOptions(backend="onnxruntime"),
    )  # fmt: skip
    quantkit.quantize(model, folder / "model.int8.onnx", statistics=made.statistics)
    table = f"{model}+{folder / 'model.calib'}"
    found = evaluate([model, folder / "model.int8.onnx", table], folder / "test")
    assert [m.kind for m in found.models] == [ModelKind.FLOAT, ModelKind.QDQ, ModelKind.TABLE]
    assert [m.int8_layers for m in found.models] == [None, (14, 14), (14, 14)]
    assert found.provenance["preprocess_from"] == "preprocess.toml beside the model"
    assert found.provenance["labels"] == "10 class folders of test"
    assert any("simulated" in text for text in found.notes)
    by_hand = quantkit.quantize(model, tmp_path / "by_hand.onnx", table=folder / "model.calib")
    again = evaluate([model, tmp_path / "by_hand.onnx"], folder / "test")
    assert by_hand.files
    assert again.candidates[0].outputs == found.candidates[1].outputs
    changed = found.candidates[1].changed
    assert changed
    assert all(c.path is not None and c.path.is_file() for c in changed)


@pytest.mark.parametrize(
    ("header", "layers"), [("TRT-8601-EntropyCalibration2", 5), ("TRT-7203-EntropyCalibration2", 5),
                           ("TRT-101303-EntropyCalibration2", 3)],
)  # fmt: skip
def test_a_table_is_simulated_for_the_tensorrt_that_it_is_for(tmp_path: Path, header: str, layers: int) -> None:
    """TensorRT 8 runs a gate behind a depthwise convolution in INT8; which TensorRT is installed does not matter."""
    network, table, samples = write_gated_block(tmp_path, header)
    made = evaluate([network, f"{network}+{table}"], samples)
    assert made.candidates[0].int8_layers == (layers, 5)


def test_without_labels_outputs_are_compared(tmp_path: Path, pair: list[Path]) -> None:
    np.save(tmp_path / "x.npy", X)
    made = evaluate(pair, tmp_path / "x.npy")
    (candidate,) = made.candidates
    assert made.metric is None
    assert candidate.difference is None
    assert candidate.agreement is not None
    assert candidate.outputs[0].kl is not None
    assert any("no labels" in text for text in made.notes)
    assert made.models[0].metrics == {}


def test_outputs_without_class_scores_are_compared(tmp_path: Path, data: Path) -> None:
    nodes = [
        helper.make_node("Unsqueeze", ["x", "one"], ["row"]),
        helper.make_node("Mul", ["row", "a"], ["boxes"]),
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=1),
        helper.make_node("ArgMax", ["x"], ["best"], axis=1),
    ]
    for name, factor in (("a.onnx", 1.0), ("b.onnx", 1.01)):
        made = network(
            nodes, {"x": ["N", 6]}, ["boxes", "total"], {"a": np.full((2, 6), factor, np.float32), "one": np.int64([1])}
        )
        made.graph.output.append(helper.make_tensor_value_info("best", onnx.TensorProto.INT64, None))
        onnx.save(made, tmp_path / name)
    options = EvaluateOptions(without_labels=True, data=DataOptions(batch_size=50))
    found = evaluate([tmp_path / "a.onnx", tmp_path / "b.onnx"], data, options=options)
    first, second = found.candidates[0].outputs
    assert (first.name, second.name, first.kl, second.sqnr_db) == ("boxes", "total", None, math.inf)
    assert first.sqnr_db == pytest.approx(40.0, abs=0.1)


def test_labels_in_batches_and_any_metric(pair: list[Path], tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "own_metric.py").write_text(
        "import numpy as np\n"
        "def margin(outputs, labels):\n"
        "    return np.sort(outputs, axis=1)[:, -1] - labels[:, 0]\n"
        "def broken(outputs, labels):\n"
        "    raise RuntimeError('not today')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    targets = X[:, :1]
    batches = [(X[:20], targets[:20]), (X[20:], targets[20:])]
    made = evaluate(pair, batches, metrics="own_metric:margin")
    assert made.metric == "margin"
    assert made.share is False
    assert made.reference.metrics["margin"] == pytest.approx(
        (plain(pair[0]).max(axis=1) - targets[:, 0]).mean(), rel=1e-5
    )
    assert made.candidates[0].difference is not None
    with pytest.raises(DataError, match="not today") as caught:
        evaluate(pair, batches, metrics="own_metric:broken")
    assert "batch 1 of the stream, sample 0" in caught.value.problem


def test_several_metrics_and_the_first_decides(pair: list[Path], data: Path) -> None:
    made = evaluate(pair, data, metrics=["top2", "top1"])
    assert made.metric == "top2"
    assert set(made.reference.metrics) == {"top1", "top2"}


def test_memory_does_not_grow_with_the_samples(pair: list[Path]) -> None:
    wide = np.zeros((256, 6), np.float32)

    def most(count: int) -> int:
        batches: Callable[[], Iterator[Any]] = lambda: ((wide.copy(), np.zeros(256, int)) for _ in range(count))  # noqa: E731
        tracemalloc.start()
        evaluate(pair, batches, options=EvaluateOptions(data=DataOptions(limit=256 * count)))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    most(4)
    few, many = most(8), most(80)
    samples = 256 * 72
    assert many - few < 300 * samples, "more than names, answers and scores are kept"


@pytest.mark.parametrize(
    ("models", "problem", "error"),
    [
        ([], "nothing to evaluate", UsageError),
        (["float.onnx", "float.onnx"], "is given twice", UsageError),
        (["float.onnx", "none/../float.onnx"], "is given twice", UsageError),
        (["float.onnx+"], r"float\.onnx\+ names no table", UsageError),
        (["none.onnx"], "No such file", quantkit.QuantkitError),
        (
            ["float.onnx", "other.onnx"],
            "takes x float32 .5,5., but the reference float.onnx takes x float32",
            DataError,
        ),
        (["float.onnx", "named.onnx"], "takes z, but the reference float.onnx takes x", DataError),
        (["float.onnx", "wide.onnx"], r"output 'scores' is .*, 7\], but the reference's is .*, 4\]", DataError),
        (["float.onnx", "nan.onnx"], r"nan\.onnx: output 'scores' holds NaN or Inf for val\.npz\[0\]", DataError),
        (["nan.onnx", "float.onnx"], r"nan\.onnx: output 'scores' holds NaN or Inf for val\.npz\[0\]", DataError),
        (["float.onnx", "x.engine"], "TensorRT|tensorrt|driver", BackendError),
    ],
)
def test_incompatible_models_are_refused(
    tmp_path: Path, pair: list[Path], data: Path, models: list[str], problem: str, error: type[Exception]
) -> None:
    linear(tmp_path / "wide.onnx", RANDOM.standard_normal((6, 7)).astype(np.float32))
    linear(tmp_path / "nan.onnx", np.full((6, CLASSES), np.nan, np.float32))
    other = [helper.make_node("Identity", ["x"], ["scores"])]
    onnx.save(network(other, {"x": [5, 5]}, ["scores"]), tmp_path / "other.onnx")
    onnx.save(
        network([helper.make_node("Identity", ["z"], ["scores"])], {"z": ["N", 6]}, ["scores"]), tmp_path / "named.onnx"
    )
    (tmp_path / "x.engine").write_bytes(b"no engine")
    with pytest.raises(error, match=problem):
        evaluate([tmp_path / name for name in models], data)


def test_labels_that_do_not_fit_are_named(tmp_path: Path, pair: list[Path]) -> None:
    np.savez(tmp_path / "bad.npz", x=X, labels=np.where(np.arange(50) == 33, CLASSES, Y))
    with pytest.raises(DataError, match=r"the label of bad\.npz\[33\] is 4, but the network has the classes 0 … 3"):
        evaluate(pair, tmp_path / "bad.npz")
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(DataError, match="there are no labels to measure with"):
        evaluate(pair, tmp_path / "x.npy", metrics="top1")


def test_options_that_contradict_each_other(pair: list[Path], data: Path) -> None:
    with pytest.raises(UsageError, match="no drop can be measured without labels"):
        EvaluateOptions(without_labels=True, max_drop=1.0)
    with pytest.raises(UsageError, match="max_drop is -1"):
        EvaluateOptions(max_drop=-1.0)
    with pytest.raises(UsageError, match="without_labels=True excludes metric= and labels="):
        evaluate(pair, data, metrics="top1", options=EvaluateOptions(without_labels=True))
    with pytest.raises(UsageError, match="names='a' does not fit 2 models"):
        evaluate(pair, data, options=EvaluateOptions(names=("a",)))
    with pytest.raises(UsageError, match="names='a,b' does not fit 1 model"):
        evaluate(pair[:1], data, options=EvaluateOptions(names=("a", "b")))


def test_a_document_survives_a_round_trip(pair: list[Path], data: Path) -> None:
    made = evaluate([*pair, linear(pair[0].parent / "same.onnx")], data, options=EvaluateOptions(max_drop=3.0))
    text = json.dumps(evaluation_json(made), allow_nan=False)
    again = parse_evaluation(json.loads(text), "it")
    assert again.models == made.models
    assert evaluation_json(again) == evaluation_json(made)
    entry = json.loads(text)["models"][1]
    assert entry["top1"] == made.models[1].metrics["top1"]
    assert entry["interval"][0] <= entry["drop"] <= entry["interval"][1]
    assert json.loads(text)["models"][2]["sqnr_db"] is None
    assert math.isinf(again.models[2].outputs[0].sqnr_db)


def test_values_without_a_json_number_survive_a_round_trip(pair: list[Path], data: Path) -> None:
    made = evaluate(pair, data)
    score = made.models[1]
    silent = replace(score.outputs[0], sqnr_db=-math.inf)
    changed = ChangedSample("a", "", "1.5", math.nan, "2.5", math.nan)
    odd = replace(made, models=(made.models[0], replace(score, outputs=(silent,), changed=(changed,))))
    again = parse_evaluation(json.loads(json.dumps(evaluation_json(odd), allow_nan=False)), "it").models[1]
    assert again.outputs == (silent,)
    assert math.isnan(again.changed[0].reference_confidence)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda _: [], "is not an evaluation"),
        (lambda d: {**d, "format": 9}, "in format 9"),
        (lambda d: {**d, "models": []}, "it has no models"),
        (lambda d: {**d, "models": [{**d["models"][0], "kind": "cake"}]}, "is damaged"),
        (lambda d: {k: v for k, v in d.items() if k != "samples"}, "is damaged: samples: field required"),
        (lambda d: {**d, "metric": "top5"}, "a model lacks top5"),
    ],
)
def test_a_damaged_document_is_refused(pair: list[Path], data: Path, change: Any, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        parse_evaluation(change(evaluation_json(evaluate(pair, data))), "it.json")


def test_runs_side_by_side(pair: list[Path], data: Path, tmp_path: Path) -> None:
    options = EvaluateOptions(names=("float", "int8"))
    first = evaluate(pair, data, options=options)
    linear(pair[1], -WEIGHT)
    second = evaluate(pair, data, options=options)
    same = compare([first, first])
    moved = compare([first, second])
    assert [(m.model, m.drop, m.beyond, m.same_model) for m in same.moves] == [
        ("float", None, None, True),
        ("int8", 0.0, False, True),
    ]
    assert moved.moves[1].beyond is True
    assert moved.moves[1].same_model is False
    assert moved.moves[1].drop is not None
    assert moved.moves[1].drop > 50
    assert "beyond the intervals" in moved.moves[1].text(" points")
    assert "<table>" in moved._repr_html_()
    np.savez(tmp_path / "half.npz", x=X[:25], labels=Y[:25])
    other = evaluate(pair, tmp_path / "half.npz", options=options)
    with pytest.raises(DataError, match="were measured with different data"):
        compare([first, other])
    assert "measured with different data" in compare([first, other], force=True).notes[0]
    with pytest.raises(UsageError, match="needs at least two"):
        compare([first])
    with pytest.raises(UsageError, match="run 2 measures top2, but run 1 top1"):
        compare([first, evaluate(pair, data, metrics="top2", options=options)])


def test_labels_are_compared_by_content(pair: list[Path], data: Path, tmp_path: Path) -> None:
    runs = []
    for name, labels in (("a", Y), ("b", Y), ("b", (Y + 1) % CLASSES)):
        np.save(tmp_path / f"{name}.npy", labels)
        runs.append(evaluate(pair, data, labels=tmp_path / f"{name}.npy"))
    assert compare(runs[:2]).notes == ()
    with pytest.raises(DataError, match="were measured with different labels"):
        compare(runs[1:])


def test_what_notebooks_show_is_escaped(pair: list[Path], data: Path) -> None:
    made = evaluate(pair, data, options=EvaluateOptions(names=("<b>", "a & b")))
    shown = made._repr_html_() + compare([made, made])._repr_html_()
    assert "<b>" not in shown
    assert "&lt;b&gt;" in shown
    assert "a &amp; b" in shown


@pytest.fixture
def command() -> Callable[..., int]:
    return lambda *arguments: invoke([str(argument) for argument in arguments])


def test_the_command_prints_a_table_of_80_columns_and_keeps_the_budget(
    command: Any, pair: list[Path], data: Path, capsys: Any
) -> None:
    assert command("evaluate", *pair, "--data", data) == 0
    printed = capsys.readouterr().out.splitlines()
    assert "coarse.onnx" in "".join(printed)
    assert all(len(line) <= 80 for line in printed if not line.startswith("•"))
    assert command("evaluate", *pair, "--data", data, "--max-drop", "99") == 0
    capsys.readouterr()
    assert command("evaluate", *pair, "--data", data, "--max-drop", "0.5", "--json") == 3
    told = json.loads(capsys.readouterr().out)
    assert told["within_budget"] is False
    assert told["max_drop"] == 0.5
    assert told["models"][0]["top1"] == 0.9
    assert told["models"][1]["drop"] > 0.5


@pytest.mark.parametrize("name", ["a", "a network whose name leaves no room for another column"])
def test_every_metric_is_on_the_terminal(command: Any, data: Path, tmp_path: Path, capsys: Any, name: str) -> None:
    pair = [linear(tmp_path / f"{name}.onnx"), coarse(tmp_path / f"{name}.int8.onnx")]
    assert command("evaluate", *pair, "--data", data, "--metric", "top2", "--metric", "top1") == 0
    printed = capsys.readouterr().out
    made = evaluate(pair, data, metrics=("top2", "top1"))
    for model in made.models:
        told = " ".join(line for line in printed.splitlines() if line.startswith(f"{model.name} "))
        assert all(f" {value:.2%}" in told for value in model.metrics.values())
    (head, *_) = (line for line in printed.splitlines() if line.startswith("model "))
    assert ("top-1" in head) == (name == "a")
    assert name != "a" or max(map(len, printed.split("\n\n")[1].splitlines())) <= 80


def test_the_command_writes_runs_that_compare_reads(
    command: Any, pair: list[Path], data: Path, tmp_path: Path, capsys: Any
) -> None:
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for file in files:
        assert command("evaluate", *pair, "--data", data, "-o", file, "--quiet") == 0
    assert capsys.readouterr().out == ""
    assert command("evaluate", *pair, "--data", data, "-o", files[0]) == 1
    assert "already exists" in capsys.readouterr().err
    assert command("compare", *files) == 0
    printed = capsys.readouterr().out
    assert (
        "from a.json to b.json the drop changes by +0.00 percentage points, within the intervals, the same file"
        in printed
    )
    assert command("compare", *files, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["runs"]) == 2
    assert command("compare", files[0], pair[0]) == 1
    assert "line 1 is not text in UTF-8" in capsys.readouterr().err


def test_nothing_is_written_after_an_error(command: Any, pair: list[Path], data: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    assert command("evaluate", *pair, "--data", data, "-o", tmp_path / "no" / "a.json") == 1
    assert command("evaluate", *pair, "--data", data, "-o", tmp_path / "a.json", "--metric", "top9") == 2
    assert sorted(tmp_path.iterdir()) == before


def test_a_table_of_another_network_is_refused(tmp_path: Path, pair: list[Path], data: Path) -> None:
    quantkit.calibrate(
        pair[0], data, output=tmp_path / "a.calib", options=quantkit.CalibrateOptions(backend="onnxruntime")
    )
    assert evaluate([pair[0], f"{pair[0]}+{tmp_path / 'a.calib'}"], data).candidates[0].kind is ModelKind.TABLE
    with pytest.raises(StaleError, match="belongs to another network"):
        evaluate([pair[0], f"{pair[1]}+{tmp_path / 'a.calib'}"], data)


def test_a_reference_alone_is_scored(pair: list[Path], data: Path) -> None:
    made = evaluate(pair[0], data)
    assert made.verdict == ()
    assert made.within_budget
    assert isinstance(replace(made, files=()), Evaluation)


def test_a_budget_without_a_candidate_is_refused(command: Any, pair: list[Path], data: Path, capsys: Any) -> None:
    with pytest.raises(UsageError, match=r"only .*float\.onnx was given") as caught:
        evaluate(pair[0], data, options=EvaluateOptions(max_drop=0.5))
    assert "give a candidate" in caught.value.remedy
    assert command("evaluate", pair[0], "--data", data, "--max-drop", "1") == 2
    assert "--max-drop 1 " in capsys.readouterr().err


def two_headed(path: Path, weight: Any = WEIGHT) -> Path:
    """A network whose two outputs are class scores alike; the second one puts them upside down."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["main"], "product"),
        helper.make_node("Mul", ["main", "turn"], ["aux"], "upside"),
    ]
    weights = {"w": weight, "turn": np.float32([-1])}
    onnx.save(network(nodes, {"x": ["N", 6]}, ["main", "aux"], weights), path)
    return path


def test_several_outputs_of_class_scores_are_named(command: Any, data: Path, tmp_path: Path, capsys: Any) -> None:
    pair = [two_headed(tmp_path / "a.onnx"), two_headed(tmp_path / "b.onnx", np.round(WEIGHT))]
    assert command("evaluate", *pair, "--data", data) == 0
    told = capsys.readouterr()
    assert "outputs 'main' and 'aux' can hold class scores" in told.err
    assert "--metric top1@main" in told.err
    assert "no labels" not in told.err
    assert "labels     none used" in told.out
    with pytest.raises(
        UsageError, match="outputs 'main' and 'aux' can hold class scores, and top1 needs one"
    ) as caught:
        evaluate(pair, data, options=EvaluateOptions(max_drop=0.5))
    assert "--metric top1@main" in caught.value.remedy
    made = evaluate(pair, data, metrics="top1@main")
    assert made.reference.metrics["top1"] == 0.9
    made = evaluate(pair, data, metrics=("top1@main", "top1@aux", "top2@main", "top1@main"))
    assert list(made.reference.metrics) == ["top1@main", "top1@aux", "top2"]
    assert made.reference.metrics["top1@main"] == 0.9 != made.reference.metrics["top1@aux"]
    assert made.metric == "top1@main"
    made = evaluate(pair, data, options=EvaluateOptions(without_labels=True))
    assert "no labels: output errors only" in made.notes


def detector(path: Path, boxes: Any) -> Path:
    """A network that finds the same boxes [4 + classes, M] in every image, as a YOLO v8 head gives them."""
    head = np.asarray(boxes, np.float32)[None]
    nodes = [
        helper.make_node("Slice", ["image", "zero", "one", "axis"], ["plane"]),
        helper.make_node("ReduceMean", ["plane"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "axes"], ["rows"]),
        helper.make_node("Mul", ["rows", "none"], ["nothing"]),
        helper.make_node("Add", ["nothing", "head"], ["found"]),
    ]
    weights = {
        "zero": np.int64([0]), "one": np.int64([1]), "axis": np.int64([1]), "axes": np.int64([1, 2]),
        "none": np.float32([0.0]), "head": head,
    }  # fmt: skip
    onnx.save(network(nodes, {"image": ["N", 3, 16, 16]}, ["found"], weights), path)
    return path


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Three images of 32 × 16 pixels with a box each, in YOLO's layout: in the letterboxed input it is [0, 4, 8, 8]."""
    pytest.importorskip("pycocotools")
    for folder in ("images", "labels"):
        (tmp_path / "set" / folder).mkdir(parents=True)
    for name in "abc":
        Image.new("RGB", (32, 16), (9, 9, 9)).save(tmp_path / "set" / "images" / f"{name}.png")
        (tmp_path / "set" / "labels" / f"{name}.txt").write_text("1 0.25 0.25 0.5 0.5\n")
    return tmp_path / "set"


def test_boxes_are_scored_in_the_image_through_the_letterbox(tmp_path: Path, scenes: Path) -> None:
    right = [[4.0] * 8, [6.0] * 8, [8.0] * 8, [4.0] * 8, [0.0] * 8, [0.9] + [0.0] * 7]
    wrong = [[12.0] * 8, *right[1:]]
    models = [detector(tmp_path / "right.onnx", right), detector(tmp_path / "wrong.onnx", wrong)]
    made = evaluate(models, scenes / "images", metrics="yolo", preprocess="yolo")
    assert made.metric == "mAP50-95"
    assert [m.metrics["mAP50-95"] for m in made.models] == pytest.approx([1.0, 0.0])
    assert made.candidates[0].agreement is None
    coco = {
        "images": [{"id": i, "file_name": f"{name}.png"} for i, name in enumerate("abc")],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
        "annotations": [{"id": i, "image_id": i, "category_id": 7, "bbox": [0, 0, 16, 8]} for i in range(3)],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(coco))
    again = evaluate(models, scenes / "images", metrics="yolo", preprocess="yolo", labels=tmp_path / "boxes.json")
    assert [m.metrics for m in again.models] == [m.metrics for m in made.models]
    with pytest.raises(UsageError, match="yolo needs boxes as labels, top1 does not"):
        evaluate(models, scenes / "images", metrics=["yolo", "top1"], preprocess="yolo")
    coco["images"].pop()
    (tmp_path / "boxes.json").write_text(json.dumps({**coco, "annotations": []}))
    with pytest.raises(DataError, match=r"lacks 1 of 3 images, for example c\.png"):
        evaluate(models, scenes / "images", metrics="yolo", preprocess="yolo", labels=tmp_path / "boxes.json")
    shutil.rmtree(scenes / "labels")
    with pytest.raises(DataError, match="there are no boxes as labels of the images in"):
        evaluate(models, scenes / "images", metrics="yolo", preprocess="yolo")


@pytest.mark.parametrize(
    ("option", "name"), [("-o", "r.html"), ("-o", "r.csv"), ("--html", "r.json"), ("-o", "r.onnx")]
)
def test_a_name_of_another_format_is_refused_before_the_work(
    command: Any, pair: list[Path], data: Path, tmp_path: Path, capsys: Any, option: str, name: str
) -> None:
    assert command("evaluate", *pair, "--data", data, option, tmp_path / name) == 2
    said = capsys.readouterr().err
    right = "r.html" if option == "--html" else "r.json"
    assert said.rstrip().endswith(f"→ name it {tmp_path / right}")
    assert not (tmp_path / name).exists()
    assert command("evaluate", *pair, "--data", data, option, tmp_path / right) == 0


@pytest.mark.parametrize("metrics", [("top1",), ("top1", "top2", "top3")])
def test_long_names_print_no_table_without_figures(
    command: Any, data: Path, tmp_path: Path, capsys: Any, metrics: tuple[str, ...]
) -> None:
    long = [linear(tmp_path / f"{name}-of-a-network-with-a-long-name.onnx") for name in "ab"]
    named = [word for metric in metrics for word in ("--metric", metric)]
    assert command("evaluate", *long, "--data", data, *named) == 0
    heads = [line for line in capsys.readouterr().out.splitlines() if line.startswith("model ")]
    assert len(heads) == min(2, len(metrics))
    assert all("top-" in head for head in heads)


def test_a_table_is_no_model_and_the_remedy_works(command: Any, data: Path, pair: list[Path], capsys: Any) -> None:
    table = pair[0].with_suffix(".calib")
    assert command("calibrate", pair[0], "--data", data, "--quiet") == 0
    assert command("evaluate", pair[0], table, "--data", data) == 2
    said = capsys.readouterr().err
    assert f"{table} is a calibration table, not a model" in said
    (given,) = re.findall(r"give (\S+)$", said, re.MULTILINE)
    assert command("evaluate", pair[0], given, "--data", data, "--quiet") == 0
