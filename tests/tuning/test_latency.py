"""tune with the objectives latency and balanced, whole, on a GPU whose costs are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import onnx
import pytest

import quantkit
from quantkit.cli import invoke
from quantkit.errors import BackendError, UsageError
from quantkit.graph import Model
from quantkit.rewrites.fold_batch_norm import fold_batch_norms
from quantkit.sensitivity.exclusion_file import expand_name_files
from quantkit.tuning import tune as tuning
from quantkit.tuning.options import TuneOptions
from quantkit.tuning.result import Tuning
from quantkit.tuning.tune import tune
from tests.support.networks import BUNDLED
from tests.support.synthetic_gpu import SyntheticLab, weighted_names

MODEL, IMAGES = BUNDLED / "model.onnx", BUNDLED / "images"
PLAIN: dict[str, Any] = {"rules": "minmax", "repairs": (), "batches": (1, 8)}


@pytest.fixture(scope="module")
def statistics() -> quantkit.Statistics:
    found = quantkit.calibrate(
        MODEL, IMAGES, rules="minmax", options=quantkit.CalibrateOptions(backend="onnxruntime")
    ).statistics
    assert found is not None
    return found


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[float, float], list[SyntheticLab]]:
    """Makes a GPU on which INT8 takes `faster` of the time, and `slower` for six nodes in the middle."""

    def use(faster: float, slower: float, **how: Any) -> list[SyntheticLab]:
        labs: list[SyntheticLab] = []

        def open_lab(source: Model, folder: Path, options: TuneOptions, phase: Any, held: ExitStack) -> SyntheticLab:
            plain = replace(source, proto=fold_batch_norms(source).proto)
            names = weighted_names(plain)
            costs = {name: (0.1, 0.1 * (slower if name in names[6:12] else faster)) for name in names}
            labs.append(SyntheticLab(plain, costs, folder=folder, batches=options.batches, **how))
            return labs[-1]

        monkeypatch.setattr(tuning, "open_lab", open_lab)
        monkeypatch.setattr(tuning, "refuse_without_gpu", lambda _: None)
        return labs

    return use


def tuned(statistics: quantkit.Statistics, objective: str = "latency", drop: float = 2.0, **how: Any) -> Tuning:
    options = TuneOptions(objective=objective, **PLAIN)  # type: ignore[arg-type]
    return tune(MODEL, IMAGES, max_drop=drop, statistics=statistics, options=options, **how)


def test_the_fastest_placement_is_written(gpu: Any, statistics: quantkit.Statistics, tmp_path: Path) -> None:
    labs = gpu(0.5, 2.0)
    made = tuned(statistics, output=tmp_path / "out")
    assert made.speed is not None
    assert (made.speed.chosen.name, made.within_budget) == ("cut", True)
    names = weighted_names(labs[0].model)[6:12]
    assert set(names) <= set(made.chosen.recipe.kept)
    assert made.deployment == {"precision": "int8", "model": "model.int8.onnx", "table": None}
    excluded = expand_name_files([f"@{tmp_path / 'out' / 'model.exclude'}"])
    again = quantkit.QuantizeOptions(rule="minmax", repairs=(), exclude=excluded)
    wanted = quantkit.quantize(MODEL, statistics=statistics, options=again).proto
    written = onnx.load(tmp_path / "out" / "model.int8.onnx")
    assert [n.input for n in written.graph.node] == [n.input for n in wanted.graph.node]
    assert "faster than FP16" in made.verdict
    assert "within the budget of 2 percentage points" in made.verdict
    assert {point.name: point.chosen for point in made.front}["cut"]
    assert ">cut</td>" in made._repr_html_()
    assert not (tmp_path / "out" / "model.fp16.onnx").exists()


def test_the_record_holds_every_candidate(gpu: Any, statistics: quantkit.Statistics, tmp_path: Path) -> None:
    gpu(0.5, 2.0)
    made = tuned(statistics, output=tmp_path / "out")
    record = json.loads((tmp_path / "out" / "tune.json").read_text())
    assert record["deploy"] == dict(made.deployment)
    written = {path.name: path for path in (tmp_path / "out").iterdir() if path.name != "tune.json"}
    assert record["digests"] == {name: sha256(path.read_bytes()).hexdigest() for name, path in written.items()}
    speed = record["speed"]
    assert (speed["objective"], speed["chosen"], speed["kind"]) == ("latency", "cut", "qdq")
    assert speed["builds"] == sum(c["build_seconds"] is not None for c in speed["candidates"])
    names = [c["name"] for c in speed["candidates"]]
    assert names[:4] == ["fp16", "default", "table", "cut"]
    assert "table" in names
    cut = speed["candidates"][3]
    assert len(cut["milliseconds"]["8"]["rounds"]) == 9
    assert cut["kept"] == record["chosen"]["kept"]
    assert record["provenance"]["tune_time"] == 15.0


def test_fp16_is_chosen_where_nothing_is_faster(gpu: Any, statistics: quantkit.Statistics, tmp_path: Path) -> None:
    gpu(1.1, 1.1)
    made = tuned(statistics, output=tmp_path / "out")
    assert made.speed is not None
    assert made.speed.chosen.name == "fp16"
    assert "take FP16" in made.verdict
    assert "INT8 is not worth it here" in made.verdict
    assert made.deployment == {"precision": "fp16", "model": "model.fp16.onnx", "table": None}
    written = onnx.load(tmp_path / "out" / "model.fp16.onnx")
    assert not any(node.op_type in ("QuantizeLinear", "BatchNormalization") for node in written.graph.node)
    assert (tmp_path / "out" / "model.int8.onnx").exists()
    assert made.report.models[-1].path == tmp_path / "out" / "model.fp16.onnx"


def test_what_is_over_the_budget_is_not_chosen(gpu: Any, statistics: quantkit.Statistics) -> None:
    gpu(0.5, 0.5)
    broken = {k: replace(h, range=h.range * 3000, minimum=h.minimum * 3000, maximum=h.maximum * 3000)
              for k, h in statistics.histograms.items()}  # fmt: skip
    made = tuned(replace(statistics, histograms=broken))
    assert made.speed is not None
    assert made.speed.chosen.name in ("fp16", "table"), "the table's engine computes in float here"
    drops = {c.name: c.figure.drop for c in made.speed.candidates if c.figure}
    assert drops["default"] > 2.0


def test_tensorrt_11_gets_fp16_in_the_graph(gpu: Any, statistics: quantkit.Statistics, tmp_path: Path) -> None:
    gpu(0.5, 2.0, reads_tables=False, half=True)
    options = TuneOptions(objective="latency", tensorrt_version="10.3.0", **PLAIN)  # type: ignore[arg-type]
    made = tune(MODEL, IMAGES, max_drop=2.0, statistics=statistics, options=options, output=tmp_path / "out")
    assert made.speed is not None
    assert made.speed.half
    kinds = {t.data_type for t in onnx.load(tmp_path / "out" / "model.int8.onnx").graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds


def test_without_a_gpu_it_says_so_before_the_work(
    statistics: quantkit.Statistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quantkit.tuning.speed.tune.explain_no_gpu", lambda _: "there is no NVIDIA driver")
    with pytest.raises(BackendError, match="needs a GPU with TensorRT, and there is no NVIDIA driver") as caught:
        tuned(statistics, "balanced")
    assert "--objective accuracy" in caught.value.remedy


def test_the_command_prints_every_engine(gpu: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gpu(0.5, 2.0)
    words = ["tune", str(MODEL), "--data", str(IMAGES), "--max-drop", "2", "--objective", "latency", "--batch", "1,8"]
    page = tmp_path / "page.html"
    more = ["--rule", "minmax", "--repair", "none", "--output", str(tmp_path / "out"), "--html", str(page)]
    assert invoke([*words, *more]) == 0
    said = capsys.readouterr().out
    assert "engines on synthetic GPU" in said
    assert "\ncut" in said
    assert "faster than FP16" in said
    shown = " ".join(page.read_text().split())
    assert "Engines by time" in shown
    assert "timed side by side on synthetic GPU, at batch 8. FP16 and the chosen one were evaluated" in shown
    assert "each timed alone" not in shown


def test_excluded_nodes_are_float_in_the_engine_by_table_too(gpu: Any, statistics: quantkit.Statistics) -> None:
    labs = gpu(0.5, 0.5)
    options = TuneOptions(objective="latency", exclude=("block1/a/conv",), **PLAIN)  # type: ignore[arg-type]
    made = tune(MODEL, IMAGES, max_drop=2.0, statistics=statistics, options=options)
    assert labs[0].request("table").exclude == ("block1/a/conv",)
    assert made.speed is not None
    (table,) = [c for c in made.speed.candidates if c.name == "table"]
    chosen = replace(made, chosen=made.trials[0], speed=replace(made.speed, chosen=table))
    assert chosen.deployment["exclude"] == ["block1/a/conv"]


def test_a_fixed_batch_is_the_only_one_that_is_timed(gpu: Any, statistics: quantkit.Statistics, tmp_path: Path) -> None:
    gpu(0.5, 2.0)
    model = onnx.load(MODEL)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, tmp_path / "fixed.onnx")
    options = TuneOptions(objective="latency", **PLAIN)  # type: ignore[arg-type]
    made = tune(tmp_path / "fixed.onnx", IMAGES, max_drop=2.0, options=options)
    assert made.speed is not None
    assert made.speed.batches == (4,)


def test_engines_for_which_no_evaluation_is_left_are_not_called_inaccurate(
    gpu: Any, statistics: quantkit.Statistics
) -> None:
    gpu(0.5, 0.5)
    options = TuneOptions(objective="latency", evaluations=6, **PLAIN)  # type: ignore[arg-type]
    made = tune(MODEL, IMAGES, max_drop=2.0, statistics=statistics, options=options)
    assert made.speed is not None
    assert made.speed.chosen.name == "fp16"
    assert made.evaluations <= 6
    assert "no evaluation was left for engines that are faster on synthetic GPU, like " in made.verdict
    assert "not worth it" not in made.verdict, "that is not known"
    assert "--max-evaluations" in made.verdict


@pytest.mark.parametrize("option", [("--batch", "4"), ("--tune-time", "3"), ("--level", "2")])
def test_options_of_times_are_refused_without_them(
    option: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["tune", str(MODEL), "--data", str(IMAGES), "--max-drop", "2", "--output", str(tmp_path / "out"), *option]
    assert invoke(words) == 2
    assert f"{option[0]} has no effect: it is for --objective latency and balanced" in capsys.readouterr().err


def test_one_more_evaluation_is_for_the_report_by_time() -> None:
    with pytest.raises(UsageError, match="5 evaluations are too few") as caught:
        TuneOptions(objective="latency", evaluations=5, **PLAIN)  # type: ignore[arg-type]
    assert "at least 6: four for the report" in caught.value.remedy
    assert TuneOptions(evaluations=5, **PLAIN).evaluations == 5
