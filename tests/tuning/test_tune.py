"""tune, whole: on the bundled network, as it is and broken on purpose; what it writes is what it found."""

from __future__ import annotations

import errno
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import quantkit
from quantkit.cli import invoke
from quantkit.cli import tune as tuning
from quantkit.data import DataOptions
from quantkit.errors import OutputError, StaleError, UsageError
from quantkit.evaluation.evaluate import evaluate
from quantkit.evaluation.options import EvaluateOptions
from quantkit.graph import load_model
from quantkit.sensitivity.exclusion_file import expand_name_files
from quantkit.sensitivity.result import LayerError
from quantkit.tuning.metric_trials import holdout_parts
from quantkit.tuning.options import TuneOptions
from quantkit.tuning.result import Tuning
from quantkit.tuning.tune import tune
from tests.support.networks import BUNDLED

MODEL, IMAGES = BUNDLED / "model.onnx", BUNDLED / "images"
ALONE = {"rules": "minmax", "repairs": (), "front": False}


def statistics() -> quantkit.Statistics:
    found = quantkit.calibrate(
        MODEL, IMAGES, rules="minmax", options=quantkit.CalibrateOptions(backend="onnxruntime")
    ).statistics
    assert found is not None
    return found


@pytest.fixture(scope="module")
def plain() -> quantkit.Statistics:
    return statistics()


def broken(found: quantkit.Statistics, tensor: str, times: float) -> quantkit.Statistics:
    """One activation as if its values reached so much farther."""
    h = found.histograms[tensor]
    wide = replace(h, range=h.range * times, minimum=h.minimum * times, maximum=h.maximum * times)
    return replace(found, histograms={**found.histograms, tensor: wide})


@pytest.fixture(scope="module")
def tensor() -> str:
    """What a convolution behind the first reads, and nothing else."""
    read = [name for node in onnx.load(MODEL).graph.node for name in node.input]
    convolutions = [node for node in onnx.load(MODEL).graph.node if node.op_type == "Conv"]
    return next(str(node.input[0]) for node in convolutions[2:] if read.count(node.input[0]) == 1)


@pytest.fixture(scope="module")
def mended(plain: quantkit.Statistics, tensor: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The network with a scale 3,000 times too large, tuned, and the folder."""
    folder = tmp_path_factory.mktemp("tuned")
    made = tune(
        MODEL,
        IMAGES,
        max_drop=2.0,
        statistics=broken(plain, tensor, 3000.0),
        output=folder / "out",
        options=TuneOptions(rules="mse,minmax", repairs=(), front=False),
    )
    return made, folder / "out"


def test_a_first_candidate_within_the_budget_is_chosen(plain: quantkit.Statistics) -> None:
    made = tune(MODEL, IMAGES, max_drop=0.5, statistics=plain, options=TuneOptions(front=False))
    assert [trial.recipe.text() for trial in made.trials] == ["wmse"]
    assert made.held
    assert made.within_budget
    assert made.evaluations == 4  # float and INT8, on both parts
    assert made.samples == (100, 100)
    assert made.files == ()
    assert "within the budget of 0.5 percentage points" in made.verdict
    assert made.verdict in made._repr_html_()


def test_the_broken_scale_is_kept_out(mended: tuple[Tuning, Path], tensor: str) -> None:
    made, _ = mended
    readers = {node.name for node in onnx.load(MODEL).graph.node if tensor in node.input}
    assert made.untuned.drop > 20
    assert made.held
    assert made.within_budget
    assert set(made.chosen.recipe.kept) <= readers
    assert len(made.chosen.recipe.kept) == 1 <= 0.1 * made.layers
    assert made.evaluations <= 20


def test_it_beats_the_first_layers(mended: tuple[Tuning, Path], plain: quantkit.Statistics, tensor: str) -> None:
    made, folder = mended
    first = next(node.name for node in onnx.load(MODEL).graph.node if node.op_type == "Conv")
    naive = folder.parent / "first.onnx"
    options = quantkit.QuantizeOptions(rule=made.chosen.recipe.rule, repairs=(), exclude=(first,))
    quantkit.quantize(MODEL, naive, statistics=broken(plain, tensor, 3000.0), options=options)
    held_out = EvaluateOptions(data=DataOptions(part=holdout_parts(0.5, DataOptions())[1]))
    found = evaluate([MODEL, naive, folder / "model.int8.onnx"], IMAGES, options=held_out)
    worse, better = (model.difference for model in found.candidates)
    assert worse is not None
    assert better is not None
    assert better.value == made.tuned.drop < worse.value


def test_the_written_model_is_what_quantize_makes_of_the_files(
    mended: tuple[Tuning, Path], plain: quantkit.Statistics, tensor: str
) -> None:
    """The exclusion file and the rule say it all."""
    made, folder = mended
    options = quantkit.QuantizeOptions(
        rule=made.chosen.recipe.rule,
        repairs=made.chosen.recipe.repairs,
        exclude=expand_name_files((f"@{folder}/model.exclude",)),
    )
    again = quantkit.quantize(MODEL, statistics=broken(plain, tensor, 3000.0), options=options)
    assert load_model(folder / "model.int8.onnx").proto.SerializeToString(deterministic=True) == (
        again.proto.SerializeToString(deterministic=True)
    )
    onnx.checker.check_model(str(folder / "model.int8.onnx"), full_check=True)
    table = quantkit.read_table(folder / "model.calib")
    assert table.scales.keys() == plain.histograms.keys()


def test_the_record_holds_every_trial(mended: tuple[Tuning, Path]) -> None:
    made, folder = mended
    record = json.loads((folder / "tune.json").read_text(encoding="utf-8"))
    assert len(record["trials"]) == len(made.trials)
    assert all(trial["outcome"] for trial in record["trials"])
    assert all(trial["why"] for trial in record["trials"] if trial["drop"] is not None)
    assert record["chosen"]["kept"] == list(made.chosen.recipe.kept)
    assert record["samples"] == {"tuning": 100, "holdout": 100}
    assert record["ranking"][0]["node"] == made.chosen.recipe.kept[0]
    assert record["holdout"]["models"][-1]["path"].endswith("model.int8.onnx")
    assert sorted(record["files"]) == sorted(path.name for path in folder.iterdir())


def test_the_same_call_gives_the_same_choice(plain: quantkit.Statistics, tensor: str, mended: Any) -> None:
    options = TuneOptions(rules="mse,minmax", repairs=(), front=False)
    again = tune(MODEL, IMAGES, max_drop=2.0, statistics=broken(plain, tensor, 3000.0), options=options)
    assert again.trials == mended[0].trials
    assert again.tuned == mended[0].tuned


def louder_channel(path: Path) -> Path:
    """A channel between two layers × 3,000 (in the BatchNormalization), and back behind a Relu: in float the same."""
    proto = onnx.load(MODEL)
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    for name, place, times in (
        ("block1/a/bn.weight", (0,), 3000.0),
        ("block1/a/bn.bias", (0,), 3000.0),
        ("block1/b/conv.weight", (slice(None), 0), 1 / 3000),
    ):
        values = numpy_helper.to_array(weights[name]).copy()
        values[place] *= np.float32(times)
        weights[name].CopyFrom(numpy_helper.from_array(values, name))
    onnx.save(proto, path)
    return path


def test_a_channel_with_large_values_is_handled(tmp_path: Path) -> None:
    shutil.copy(BUNDLED / "preprocess.toml", tmp_path)
    path = louder_channel(tmp_path / "loud.onnx")
    made = tune(path, IMAGES, max_drop=1.0, options=TuneOptions(**ALONE))
    assert made.untuned.drop > 1.0
    assert made.within_budget
    assert made.chosen.recipe.kept == ("block1/b/conv",)
    assert len(made.chosen.recipe.kept) <= 0.1 * made.layers


def test_without_labels_agreement_counts(tmp_path: Path, plain: quantkit.Statistics) -> None:
    shutil.copytree(IMAGES / "3", tmp_path / "flat")
    made = tune(MODEL, tmp_path / "flat", max_drop=0.5, statistics=plain, options=TuneOptions(front=False))
    assert made.metric == "agreement"
    assert made.reference == 1.0
    assert made.tuned.drop == pytest.approx(100.0 * (1.0 - (made.report.models[-1].agreement or 0.0)))
    assert made.within_budget


def test_the_verdict_says_that_the_budget_is_missed(plain: quantkit.Statistics, tensor: str) -> None:
    options = TuneOptions(most=0.0, **ALONE)
    made = tune(MODEL, IMAGES, max_drop=0.5, statistics=broken(plain, tensor, 3000.0), options=options)
    assert not made.held
    assert not made.within_budget
    assert "none of the allowed configurations meets it" in made.verdict
    assert any("none is kept" in text for text in made.notes)


@pytest.mark.parametrize("most", [5, 7])
def test_evaluations_are_never_more_than_allowed(plain: quantkit.Statistics, tensor: str, most: int) -> None:
    options = TuneOptions(rules="mse,minmax", evaluations=most, repairs=(), front=False)
    made = tune(MODEL, IMAGES, max_drop=0.0, statistics=broken(plain, tensor, 3000.0), options=options)
    assert made.evaluations <= most


def test_evaluations_that_ran_out_are_reported(plain: quantkit.Statistics, tensor: str) -> None:
    options = TuneOptions(rules="minmax,percentile:90", evaluations=5, front=False)
    made = tune(MODEL, IMAGES, max_drop=0.0, statistics=broken(plain, tensor, 3000.0), options=options)
    assert any(trial.outcome == "not evaluated: no evaluations left" for trial in made.trials)
    assert made.verdict.endswith(
        "the evaluations ran out before everything allowed had been tried (--max-evaluations)."
    )
    assert "none left" in [tuning.candidate_row(trial, made)[-1] for trial in made.trials]


def test_all_but_one_layer_may_stay_float(plain: quantkit.Statistics) -> None:
    options = TuneOptions(most=1.0, rules="percentile:80", repairs=(), front=False)
    made = tune(MODEL, IMAGES, max_drop=0.0, statistics=plain, options=options)
    assert any(trial.recipe.kept for trial in made.trials)
    assert len(made.chosen.recipe.kept) < made.layers


def test_excluded_nodes_are_counted_reported_and_written(plain: quantkit.Statistics, tmp_path: Path) -> None:
    options = TuneOptions(exclude=("block1*", "classifier"), rules="mse", repairs=(), front=True)
    made = tune(MODEL, IMAGES, max_drop=50.0, statistics=plain, output=tmp_path / "out", options=options)
    assert "all layers quantized except the excluded ones" in made.verdict
    layers = [layer.node for layer in ranked_layers(plain)]
    assert set(made.excluded) >= {name for name in layers if name.startswith("block1")} | {"classifier"}
    assert 0.0 < made.chosen.floats < 1.0
    if made.front == ():
        assert any(f"{made.chosen.floats:.1%} of the weights" in note for note in made.notes)
    again = quantkit.QuantizeOptions(
        rule="mse", repairs=(), exclude=expand_name_files((f"@{tmp_path}/out/model.exclude",))
    )
    same = quantkit.quantize(MODEL, statistics=plain, options=again)
    assert load_model(tmp_path / "out/model.int8.onnx").proto.graph == same.proto.graph


def ranked_layers(found: quantkit.Statistics) -> tuple[LayerError, ...]:
    """The layers of the bundled network."""
    return quantkit.layers(
        MODEL, statistics=found, options=quantkit.LayersOptions(data=DataOptions(limit=8)), data=IMAGES
    ).layers


def test_a_network_in_memory_has_no_file_and_its_own_size(plain: quantkit.Statistics, tmp_path: Path) -> None:
    options = TuneOptions(rules="percentile:90,mse", repairs=(), front=False)
    made = tune(MODEL, IMAGES, max_drop=2.0, statistics=plain, output=tmp_path / "out", options=options)
    plain_network, untuned, tuned = made.report.models
    assert plain_network.path == MODEL
    assert untuned.path is None
    assert tuned.path == tmp_path / "out/model.int8.onnx"
    assert untuned.bytes < 0.7 * plain_network.bytes


def test_best_reports_the_rule_of_each_tensor(plain: quantkit.Statistics, tmp_path: Path) -> None:
    options = TuneOptions(rules="best", front=False)
    made = tune(MODEL, IMAGES, max_drop=2.0, statistics=plain, output=tmp_path / "out", options=options)
    alone = quantkit.quantize(MODEL, statistics=plain, options=quantkit.QuantizeOptions(rule="best", repairs=()))
    assert made.rules == alone.rules != {}
    assert json.loads((tmp_path / "out/tune.json").read_text())["rules"] == made.rules
    assert load_model(tmp_path / "out/model.int8.onnx").proto.graph == alone.proto.graph


# ── the command ─────────────────────────────────────────────────────────────────────────────────────────────────────


def called(*arguments: object) -> int:
    return invoke(["tune", *map(str, arguments), "--no-front"])


def test_the_command_writes_files_and_prints_the_result(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = Path("report.html")
    assert called("net/model.onnx", "--data", "imgs", "--max-drop", 2, "--html", page) == 0
    printed = capsys.readouterr().out
    assert "wrote  net/model.tuned/tune.json" in printed
    assert "within *" in printed
    assert max(len(line) for line in printed.splitlines() if not line.startswith("•")) <= 80
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    before = {path: path.read_bytes() for path in (place / "net/model.tuned").iterdir()}
    assert called("net/model.onnx", "--data", "imgs", "--max-drop", 2) == 1
    assert "already exists" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (place / "net/model.tuned").iterdir()} == before
    assert called("net/model.onnx", "--data", "imgs", "--max-drop", 2, "--force", "--json") == 0
    assert json.loads(capsys.readouterr().out)["within_budget"]


def test_pixels_that_were_prepared_by_chance_are_a_warning_also_in_quiet(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "net/preprocess.toml").unlink()
    assert called("net/model.onnx", "--data", "imgs", "--max-drop", 50, "--rule", "mse", "--repair", "none", "-q") == 3
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("warning: the preprocessing of this network is unknown")


def test_the_exit_code_reflects_the_budget(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ("--rule", "percentile:90", "--repair", "none", "--max-float", "20%", "-o", "out", "--json")
    assert called("net/model.onnx", "--data", "imgs", "--max-drop", 0.5, *settings) == 3
    made = json.loads(capsys.readouterr().out)
    assert not made["within_budget"]
    assert len(made["chosen"]["kept"]) <= 0.2 * made["layers"]
    assert sorted(path.name for path in (place / "out").iterdir()) == sorted(made["files"])
    assert expand_name_files(("@out/model.exclude",)) == tuple(made["chosen"]["kept"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--max-drop", -1), "max_drop is -1"),
        (("--max-drop", 1, "--holdout", 1), "cannot hold out a fraction of 1 of the samples"),
        (("--max-drop", 1, "--max-float", "many"), "--max-float 'many' is not a fraction"),
        (("--max-drop", 1, "--max-evaluations", 4), "4 evaluations are too few"),
        (("--max-drop", 1, "--rule", "kl"), "unknown rule 'kl'"),
        (("--max-drop", 1, "--repair", "paint"), "unknown repair 'paint'"),
        (("--max-drop", 1, "--data", "nowhere"), "nowhere does not exist"),
        (("--max-drop", 1, "-o", "out", "--html", "out/tune.json"), "tune writes out/tune.json itself"),
        (("--max-drop", 1, "--limit", 1), "1 samples cannot be split"),
    ],
)
def test_what_is_wrong_is_one_line(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[object, ...], said: str
) -> None:
    assert called("net/model.onnx", "--data", "imgs", "--quiet", *arguments) in (1, 2)
    problem = capsys.readouterr().err.splitlines()
    assert problem[0].startswith("quantkit: ")
    assert said in problem[0]
    assert not (place / "net/model.tuned").exists()


@pytest.mark.parametrize(
    ("html", "said"),
    [
        ("tune.html", "another --html keeps both"),
        ("nodir/x.html", "write elsewhere with --html"),
        ("imgs", "give the path of a file with --html"),
        ("net/model.onnx", "give another --html"),
    ],
)
def test_what_is_wrong_with_the_report_names_its_option(
    place: Path, capsys: pytest.CaptureFixture[str], html: str, said: str
) -> None:
    (place / "tune.html").write_text("mine")
    assert called("net/model.onnx", "--data", "imgs", "--max-drop", 1, "-o", "out", "--html", html) in (1, 2)
    told = capsys.readouterr().err
    assert said in told
    assert "--output" not in told
    assert not (place / "out").exists()


def test_the_report_can_go_into_the_folder_that_is_made(place: Path) -> None:
    line = ("net/model.onnx", "--data", "imgs", "--max-drop", 2, "-o", "out", "--html")
    assert called(*line, "out/deeper/tune.html") == 1
    assert not (place / "out").exists()
    assert called(*line, "./out/tune.html") == 0
    assert {"tune.html", "tune.json"} <= {path.name for path in (place / "out").iterdir()}


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_is_refused_as_output_folder(place: Path, plain: quantkit.Statistics) -> None:
    (place / "out").write_text("mine")
    with pytest.raises(OutputError, match="is a file"):
        tune("net/model.onnx", "imgs", max_drop=1.0, output="out")
    with pytest.raises(OutputError, match="there is no folder nowhere"):
        tune("net/model.onnx", "imgs", max_drop=1.0, output="nowhere/out")


def test_a_failed_write_leaves_nothing(
    place: Path, plain: quantkit.Statistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("quantkit.tuning.files.stage_model", full)
    with pytest.raises(OutputError, match="No space"):
        tune("net/model.onnx", "imgs", max_drop=9.0, output="out", statistics=plain)
    assert not (place / "out").exists()


def test_other_statistics_are_refused(place: Path, plain: quantkit.Statistics) -> None:
    other = replace(plain, origin=plain.origin.model_copy(update={"model": "0" * 64}))
    with pytest.raises(StaleError, match="another network"):
        tune("net/model.onnx", "imgs", max_drop=1.0, statistics=other)


@pytest.mark.parametrize("where", ["data", "calibration"])
def test_statistics_of_images_that_were_prepared_otherwise_are_refused(
    place: Path, plain: quantkit.Statistics, where: str
) -> None:
    assert plain.origin.preprocess is not None
    document = {**plain.origin.preprocess, "interpolation": "bicubic"}
    other = replace(plain, origin=plain.origin.model_copy(update={"preprocess": document}))
    given = {"data": "x.npz", "calibration": "x.npz"} | {where: "imgs"}
    with pytest.raises(
        StaleError, match=r"statistics is from images preprocessed by: .*bicubic.*would be preprocessed by: .*bilinear"
    ):
        tune("net/model.onnx", max_drop=1.0, statistics=other, **given)


def test_a_user_metric_decides(place: Path, plain: quantkit.Statistics, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its own unit; where nothing tells how sure a loss is, it is taken as it is."""
    (place / "tuned_metric.py").write_text("def sure(outputs, labels):\n    return outputs.max(axis=1)\n")
    monkeypatch.syspath_prepend(place)
    options = TuneOptions(front=False, metrics=("tuned_metric:sure",))
    made = tune(MODEL, IMAGES, max_drop=100.0, statistics=plain, options=options)
    assert made.metric == "sure"
    assert made.within_budget
    assert made.unit == (" points" if made.share else "")


@pytest.mark.parametrize("budget", [-1.0, math.nan])
def test_a_budget_is_a_number(budget: float) -> None:
    with pytest.raises(UsageError, match="max_drop is"):
        tune(MODEL, IMAGES, max_drop=budget)
