"""run and init, whole: the first run makes everything, the second nothing, a changed option what depends on it."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from quantkit.backends.tensorrt.options import Precision
from quantkit.backends.tensorrt_rtx.compiling import compiler_version
from quantkit.backends.tensorrt_rtx.record import read_compiled_record
from quantkit.engines.bench_result import BenchResult, BenchSubject, Latency
from quantkit.errors import BackendError, DataError, ModelError, OutputError, QuantkitError
from quantkit.graph import Model, load, load_model
from quantkit.mapping.layout import has_layout
from quantkit.progress import NoWatcher
from quantkit.project import run as running
from quantkit.project.engine_steps import engine_steps
from quantkit.project.inputs import plan_run
from quantkit.project.run import model_step, run, statistics_step, table_step
from quantkit.project.settings import EvaluateSettings, QuantizeSettings, Settings, read_settings
from quantkit.project.step_plan import plan_steps
from quantkit.project.steps import RunSteps
from quantkit.project.store import StepStore
from quantkit.project.tune_step import tune_step
from quantkit.rewrites.fold_batch_norm import fold_batch_norms
from quantkit.statistics import read_statistics
from quantkit.table import read_table
from tests.support.networks import BUNDLED, Command
from tests.support.synthetic_gpu import SyntheticLab, weighted_names

MAP = ["map"] if has_layout() else []
"""The step that needs fast-sugiyama, which needs Python 3.11."""
QUICK = QuantizeSettings(repairs=("bias",), exclude=("block2/*", "block3/*", "block4/*"))
"""Fewer layers are measured sooner."""


def settings(**changes: Any) -> Settings:
    base: dict[str, Any] = {"model": "net/model.onnx", "data": "imgs", "quantize": QUICK, "compile": False}
    return Settings(**(base | changes))


WITHOUT_LAYERS = EvaluateSettings(layers=False)


def redone(made: running.Run) -> list[str]:
    return [step.name for step in made.steps if not step.reused]


def test_each_step_is_done_once_and_again_where_its_inputs_changed(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each network is read once, whatever number of steps works on it."""
    read, read_proto = Counter[str](), load.read_proto

    def counted(file: Path) -> onnx.ModelProto:
        read[file.name] += 1
        return read_proto(file)

    monkeypatch.setattr(load, "read_proto", counted)
    first = run(settings())
    assert read == {"model.onnx": 1, "model.int8.onnx": 1}
    assert redone(first) == ["statistics", "table", "model", "layers", *MAP, "report"]
    assert redone(run(settings())) == []
    assert redone(run(settings(rule="minmax"))) == ["table", "model", "layers", *MAP, "report"]
    assert redone(run(settings())) == [], "an earlier outcome is still there"
    assert redone(run(settings(evaluate=EvaluateSettings(max_drop=50.0)))) == ["report"]
    assert redone(run(settings(quantize=QUICK.model_copy(update={"repairs": ()})))) == [
        "model",
        "layers",
        *MAP,
        "report",
    ]
    (place / "imgs" / "0" / "new.png").write_bytes(next((place / "imgs" / "0").iterdir()).read_bytes())
    assert redone(run(settings())) == ["statistics", "table", "model", "layers", *MAP, "report"]
    assert redone(run(settings(), clean=True)) == ["statistics", "table", "model", "layers", *MAP, "report"]


@pytest.mark.skipif(compiler_version() is None, reason="needs the extra rtx")
def test_the_model_is_compiled_where_the_compiler_is_installed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = QuantizeSettings(repairs=("bias",))
    made = run(settings(compile=None, evaluate=WITHOUT_LAYERS, quantize=whole))
    assert redone(made) == ["statistics", "table", "model", "compile", *MAP, "report"]
    record = read_compiled_record(made.files["model.int8.compiled.json"])
    assert [network.architecture for network in record.networks] == ["sm86", "sm120"]
    assert all(network.int8_share == 1 for network in record.networks)
    assert record.model.sha256 == load_model(made.files["model.int8.onnx"]).sha256
    assert sum("kernels that multiply are INT8" in note for note in made.notes) == 2
    assert redone(run(settings(compile=None, evaluate=WITHOUT_LAYERS, quantize=whole))) == []
    without = run(settings(evaluate=WITHOUT_LAYERS, quantize=whole))
    assert redone(without) == MAP
    assert "model.int8.compiled.json" not in without.files
    assert not (place / "net" / "model.run" / "model.int8.compiled.json").exists()
    monkeypatch.setattr("quantkit.backends.tensorrt_rtx.compiling.find_spec", lambda _: None)
    with pytest.raises(BackendError, match="TensorRT-RTX, which compiles, is not installed"):
        run(settings(compile=True))


def test_a_model_under_another_name_gets_files_of_its_own(place: Path) -> None:
    run(settings(output="out", evaluate=WITHOUT_LAYERS))
    (place / "net" / "other.onnx").write_bytes((place / "net" / "model.onnx").read_bytes())
    made = run(settings(model="net/other.onnx", output="out", evaluate=WITHOUT_LAYERS))
    assert {"other.stats.safetensors", "other.calib", "other.int8.onnx"} <= made.files.keys()
    assert made.evaluation.reference.name == "other.onnx"


def test_every_sample_is_evaluated_and_stamped_where_the_batch_is_fixed(place: Path) -> None:
    proto = onnx.load(place / "net" / "model.onnx")
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 7
    onnx.save(proto, place / "net" / "seven.onnx")
    chosen = settings(model="net/seven.onnx", evaluate=EvaluateSettings(limit=60, layers=False))
    assert run(chosen).evaluation.samples == 60
    last = sorted((place / "imgs").rglob("*.png"))[-1]
    last.write_bytes(last.read_bytes() + b"changed")
    assert redone(run(chosen)) == ["report"]


def test_a_metric_of_code_is_measured_every_time(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = place / "figures_of_run.py"
    code.write_text("def right(outputs, labels):\n    return (outputs.argmax(1) == labels) * 1.0\n")
    monkeypatch.syspath_prepend(str(place))
    chosen = settings(evaluate=EvaluateSettings(metrics=("figures_of_run:right",), layers=False))
    run(chosen)
    assert redone(run(chosen)) == ["report"]


def test_what_lies_in_the_folder_belongs_together(place: Path) -> None:
    made = run(settings(rule="minmax"))
    folder = place / "net" / "model.run"
    assert {path.parent for path in made.files.values()} == {Path("net/model.run")}
    table = read_table(folder / "model.calib")
    statistics = read_statistics(folder / "model.stats.safetensors")
    name = next(iter(table.scales))
    assert table.amax(name) == pytest.approx(statistics.histograms[name].amax, rel=1e-6)
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert [m["name"] for m in evaluation["models"]] == ["model.onnx", "model.int8.onnx", "model.onnx+model.calib"]
    assert evaluation["models"][0]["top1"] > 0.9
    assert ".tmp" not in json.dumps(evaluation)
    assert made.recommendation.split(".")[0] in (folder / "report.html").read_text()
    assert any("optimistic" in note for note in made.notes)
    assert "<table" in made._repr_html_()


def test_the_report_ranks_layers_unless_that_is_left_out(place: Path) -> None:
    made = run(settings())
    assert "layer" in made.files["report.html"].read_text().lower()
    ranked = "classifier"
    assert ranked in made.files["report.html"].read_text()
    without = run(settings(evaluate=EvaluateSettings(layers=False)))
    assert redone(without) == [*MAP, "report"]
    assert [step.name for step in without.steps] == ["statistics", "table", "model", *MAP, "report"]
    assert ranked not in without.files["report.html"].read_text()


@pytest.mark.skipif(not MAP, reason="fast-sugiyama needs Python 3.11")
def test_the_report_links_the_map_of_what_was_measured(place: Path) -> None:
    made = run(settings())
    assert 'href="model.map.html"' in made.files["report.html"].read_text()
    page = made.files["model.map.html"].read_text()
    assert '"gain in float"' in page
    assert '"SQNR"' in page


def test_nodes_that_stay_float_come_from_a_file_beside_the_project(place: Path, quantkit_command: Command) -> None:
    (place / "net" / "kept.txt").write_text("classifier  # a remark\n")
    text = 'model = "model.onnx"\ndata = "../imgs"\n[quantize]\nrepairs = []\nexclude = ["@kept.txt"]\n'
    (place / "net" / "quantkit.toml").write_text(text)
    line = ("run", "--config", "net/quantkit.toml", "--no-layers", "--no-compile", "--json")
    first = json.loads(quantkit_command(*line).stdout)
    int8 = first["evaluation"]["models"][1]["int8_layers"]
    assert int8[0] == int8[1] - 1
    (place / "net" / "kept.txt").write_text("# nothing\n")
    again = json.loads(quantkit_command(*line).stdout)
    # A layer that is not excluded any more may need a scale that its tensor cannot have.
    assert [step["name"] for step in again["steps"] if not step["reused"]] == ["statistics", "model", *MAP, "report"]


def test_for_tensorrt_11_there_is_no_table(place: Path) -> None:
    folder = place / "net" / "model.run"
    assert run(settings(evaluate=WITHOUT_LAYERS)).files["model.calib"].is_file()
    (folder / "model.txt").write_text("of the user")
    made = run(settings(calibrate={"tensorrt_version": "11.0.0"}, evaluate=WITHOUT_LAYERS))
    assert sorted(p.name for p in folder.iterdir()) == sorted([*made.files, "model.txt", "steps"])
    assert "model.calib" not in made.files
    assert [m.name for m in made.evaluation.models] == ["model.onnx", "model.int8.onnx"]


def test_fp8_has_a_model_of_its_own_and_no_table(place: Path) -> None:
    folder = place / "net" / "model.run"
    run(settings(evaluate=WITHOUT_LAYERS))
    made = run(settings(evaluate=WITHOUT_LAYERS, quantize={"type": "fp8", "int8": ("stem/conv",)}, rule="minmax"))
    assert [m.name for m in made.evaluation.models] == ["model.onnx", "model.mixed.onnx"]
    assert made.evaluation.models[1].fp8_layers == 10
    assert made.evaluation.models[1].int8_layers == (1, 14)
    assert sorted(p.name for p in folder.iterdir()) == sorted([*made.files, "steps"])
    assert "no calibration table is made: it would hold scales of INT8" in made.notes
    assert redone(run(settings(evaluate=WITHOUT_LAYERS, quantize={"type": "fp8"}, rule="minmax")))[0] == "model"


def test_a_run_that_fails_leaves_what_was_there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(settings(evaluate=WITHOUT_LAYERS))
    folder = place / "net" / "model.run"
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(running, "evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(settings(rule="minmax", evaluate=WITHOUT_LAYERS))
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    assert not list((folder / "steps").glob(".*"))
    assert redone(run(settings(rule="minmax", evaluate=WITHOUT_LAYERS))) == ["report"]


def test_engines_that_are_asked_for_need_a_gpu(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantkit.project.early_checks.explain_no_gpu", lambda _: "there is no NVIDIA driver")
    with pytest.raises(BackendError, match="engines cannot be built: there is no NVIDIA driver"):
        run(settings(gpu=True))
    assert not (place / "net" / "model.run").exists(), "before the work"


def test_a_folder_of_others_is_refused(place: Path) -> None:
    (place / "out").mkdir()
    (place / "out" / "report.html").write_text("mine")
    with pytest.raises(OutputError, match="did not write"):
        run(settings(output="out"))
    assert (place / "out" / "report.html").read_text() == "mine"


def test_the_command_reads_the_project_and_flags_go_over_it(place: Path, quantkit_command: Command) -> None:
    shutil.move(place / "imgs", place / "images")
    quantkit_command("init", "net/model.onnx", "--data", "images")
    assert "already exists" in quantkit_command("init", "net/model.onnx", code=1).stderr
    text = (place / "quantkit.toml").read_text().replace('# repairs = ["bias"]', 'repairs = ["bias"]')
    text = text.replace("# compile = true", "compile = false")
    (place / "quantkit.toml").write_text(text)
    shown = quantkit_command("run", "--json")
    document = json.loads(shown.stdout)
    assert [step["name"] for step in document["steps"]] == ["statistics", "table", "model", "layers", *MAP, "report"]
    assert set(document) == {
        "recommendation", "steps", "files", "notes", "warnings", "evaluation", "bench", "held_out",
    }  # fmt: skip
    again = quantkit_command("run", "--max-drop", 0, "--rule", "percentile:90", code=3)
    assert "over the budget of 0 percentage points" in again.stderr
    assert "reused" in again.stdout


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rule": "kl"}, "unknown rule 'kl'"),
        ({"rule": "mse,entropy"}, "2 rules are given"),
        ({"quantize": {"repairs": ("luck",)}}, "unknown repair 'luck'"),
        ({"build": {"precisions": ("int3",)}}, "unknown precision 'int3'"),
        ({"build": {"shapes": ("image",)}}, "image"),
        ({"evaluate": {"metrics": ("best",)}}, "unknown metric 'best'"),
        ({"evaluate": {"metrics": ("top1@none",)}}, "no output 'none'"),
        ({"evaluate": {"metrics": ("none_of_mine:f",)}}, "no module 'none_of_mine'"),
        ({"evaluate": {"labels": "none.csv"}}, "none.csv"),
        ({"quantize": {"type": "fp8"}, "calibrate": {"tensorrt_version": "8.6.1"}}, "TensorRT 8 has no FP8"),
        (
            {"quantize": {"type": "fp8"}, "build": {"precisions": ("int8",)}},
            "needs a calibration table, and a run with",
        ),
        (
            {"quantize": {"type": "fp8"}, "build": {"precisions": ("fp32", "tf32", "fp16", "int8")}},
            "needs a calibration table, and a run with",  # asked for, even if it is the default
        ),
        ({"quantize": {"fp8": ("head/*",)}, "rule": "entropy"}, "the rule entropy counts the levels of INT8"),
        ({"quantize": {"type": "fp8", "repairs": ("round",)}}, "the repair 'round' is for INT8"),
        ({"quantize": {"fp8": ("*",), "repairs": ("round",)}}, "the repair 'round' is for INT8"),
        ({"quantize": {"int8": ("head/*",)}}, "names nodes among others of another type"),
        ({"evaluate": {"classes": "none.txt"}}, "none.txt"),
    ],
)
def test_what_a_late_step_would_refuse_is_refused_before_the_first(
    changes: dict[str, Any], said: str, place: Path
) -> None:
    before = sorted(place.rglob("*"))
    with pytest.raises(QuantkitError, match=said):
        run(Settings.model_validate({"model": "net/model.onnx", "data": "imgs"} | changes))
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["run"], 2, "no model is given"),
        (["run", "net/model.onnx"], 2, "no data is given"),
        (["run", "net/none.onnx", "--data", "imgs"], 1, "none.onnx"),
        (["run", "net/model.onnx", "--data", "nothing"], 1, "nothing does not exist"),
        (["run", "net/model.onnx", "--data", "imgs", "--config", "none.toml"], 2, "none.toml"),
        (["run", "net/model.onnx", "--data", "imgs", "--exclude", "nonode", "--repair", "none"], 2, "nonode"),
        (["run", "net/model.onnx", "--data", "imgs", "--labels", "none.csv"], 1, "none.csv"),
        (["run", "net/model.onnx", "--data", "imgs", "--type", "mixed"], 2, "--type is 'mixed'"),
        (["run", "net/model.onnx", "--data", "imgs", "--rule", "entropy,minmax"], 2, "2 rules are given"),
        (["run", "net/model.onnx", "--data", "imgs", "--precision", "int4"], 2, "int4"),
        (["run", "net/model.onnx", "--data", "imgs", "--repair", "magic"], 2, "magic"),
        (["run", "net/model.onnx", "--data", "imgs", "--fp8", "head/*", "--rule", "entropy"], 2, "levels of INT8"),
        (["run", "net/model.onnx", "--data", "imgs", "--type", "fp8", "--int8", "nonode"], 2, "nonode"),
    ],
)
def test_errors_are_one_line(
    place: Path, quantkit_command: Command, arguments: list[str], code: int, said: str
) -> None:
    done = quantkit_command(*arguments, code=code)
    assert said in done.stderr
    assert "→" in done.stderr


def test_init_says_that_a_folder_is_no_model(place: Path, quantkit_command: Command) -> None:
    told = quantkit_command("init", "net", code=1).stderr
    assert "net: this is a folder" in told
    assert "path of an ONNX model" in told
    assert not (place / "quantkit.toml").exists()


def test_init_names_paths_from_the_files_own_folder(place: Path, quantkit_command: Command) -> None:
    quantkit_command("init", "net/model.onnx", "--data", "imgs", "-o", "net/quantkit.toml")
    text = (place / "net" / "quantkit.toml").read_text()
    assert 'model = "model.onnx"' in text
    assert 'data = "../imgs"' in text
    found = read_settings(place / "net" / "quantkit.toml")
    assert found.model is not None
    assert Path(found.model).samefile("net/model.onnx")
    for line in (("none.onnx", "--data", "imgs"), ("net/model.onnx", "--data", "none")):
        assert "none" in quantkit_command("init", *line, "-o", "new.toml", code=1).stderr
    assert not Path("new.toml").exists()
    assert "read it, then" in quantkit_command("init", "net/model.onnx", "--data", "mine:batches").stdout
    done = quantkit_command("init", "-o", "other.toml")
    assert "replace the placeholders model.onnx and images" in done.stdout


def test_a_missing_path_is_reported_relative_to_the_files_folder(place: Path) -> None:
    (place / "net" / "quantkit.toml").write_text('model = "modle.onnx"\ndata = "mine:batches"\n')
    found = read_settings(place / "net" / "quantkit.toml")
    assert found.model is not None
    assert Path(found.model) == place / "net" / "modle.onnx"
    assert found.data == "mine:batches"


def test_unreadable_images_can_be_left_out(place: Path, quantkit_command: Command) -> None:
    (place / "imgs" / "0" / "zz.png").write_text("hello")
    line = ("run", "net/model.onnx", "--data", "imgs", "--repair", "none", "--no-compile")
    assert "0/zz.png" in quantkit_command(*line, code=1).stderr
    quantkit_command(*line, "--skip-corrupt")
    assert json.loads((place / "net" / "model.run" / "evaluation.json").read_text())["samples"] == 60
    layers = ("layers", "net/model.onnx", "--stats", "net/model.run/model.stats.safetensors", "--data", "imgs")
    assert "0/zz.png" in quantkit_command(*layers, code=1).stderr
    assert "over 60 samples" in quantkit_command(*layers, "--skip-corrupt").stdout


def test_warnings_are_printed_even_with_quiet(place: Path, quantkit_command: Command) -> None:
    (place / "net" / "preprocess.toml").unlink()
    guessed = "warning: the preprocessing of this network is unknown"
    run_quietly = quantkit_command("run", "net/model.onnx", "--data", "imgs", "--repair", "none", "--no-compile", "-q")
    assert (
        run_quietly.stderr.count("the preprocessing of this network is unknown")
        == run_quietly.stderr.count(guessed)
        == 1
    )
    document = json.loads((place / "net" / "model.run" / "evaluation.json").read_text(encoding="utf-8"))
    assert document["provenance"]["preprocess_from"] == "default"
    assert "the preprocessing was guessed (exact 16×16 bilinear" in document["doubts"][0]
    page = (place / "net" / "model.run" / "report.html").read_text(encoding="utf-8")
    assert "Cannot tell whether INT8 is good enough: the preprocessing was guessed" in page
    assert "In doubt: the preprocessing was guessed" in page
    line = ("evaluate", "net/model.onnx", "--data", "imgs")
    assert quantkit_command(*line, "-q", "-o", "a.json").stderr.startswith(guessed)
    assert quantkit_command(*line).stderr.count("the preprocessing of this network is unknown") == 1
    made = json.loads((place / "a.json").read_text())
    assert set(made["warnings"]) <= set(made["notes"])
    assert "preprocessing of this network is unknown" in made["warnings"][0]
    spec = BUNDLED / "preprocess.toml"
    assert quantkit_command(*line, "--preprocess", spec, "-q").stderr == ""


def test_engines_are_built_and_timed_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a builder and a bench that need no GPU."""

    @dataclass
    class Built:
        warnings: tuple[str, ...] = ()
        notes: tuple[str, ...] = ("made up",)

    def build(model: Model, *, options: Any, table: Path | None, output: Path, phase: Any) -> Built:
        if options.precision is Precision.FP16:
            raise BackendError("FP16 is not to be had", remedy="none")
        assert (table is not None) == (output.name == "model.int8.engine")
        output.write_bytes(model.path.read_bytes())
        (output.parent / f"{output.name}.json").write_text("{}")
        return Built()

    def bench(engines: Sequence[Path], *, options: Any, phase: Any) -> BenchResult:
        names = [path.name for path in engines]
        latencies = tuple(Latency(name, options.batches[-1], True, 1.5, 1.6, 1.7, 9) for name in names)
        return BenchResult("a GPU", True, tuple(BenchSubject(name, "int8", 1) for name in names), latencies)

    monkeypatch.setattr("quantkit.engines.build.build", build)
    for name, fake in (("explain_no_gpu", lambda _: None), ("machine_name", lambda _: "a GPU"), ("bench", bench)):
        monkeypatch.setattr(f"quantkit.project.engine_steps.{name}", fake)
    found = []
    for _ in range(2):
        plan = plan_run(settings(build={"precisions": ("fp32", "fp16", "int8")}, quantize=QuantizeSettings(repairs=())))
        store = StepStore(plan.output)
        store.folder.mkdir(parents=True, exist_ok=True)
        steps = RunSteps(plan, store, NoWatcher(), plan_steps(plan))
        statistics = statistics_step(steps)
        found.append(engine_steps(steps, table_step(steps, statistics), model_step(steps, statistics)))
        assert "the fp16 engine was not built: FP16 is not to be had" in steps.notes
        assert "qdq: made up" in steps.notes
    assert found[0] == found[1]
    assert [path.name for path in found[0].engines] == ["model.fp32.engine", "model.int8.engine", "model.qdq.engine"]
    assert found[0].bench is not None
    assert found[0].bench.median("model.qdq.engine", 32) == 1.5
    assert [step.name for step in steps.taken if not step.reused] == []


@pytest.mark.parametrize("pays", [True, False])
def test_the_fastest_engine_is_tuned(place: Path, monkeypatch: pytest.MonkeyPatch, pays: bool) -> None:
    """On a GPU whose costs are known; where INT8 is slower everywhere, FP16 is chosen, and no engine is added."""

    def open_lab(source: Model, folder: Path, options: Any, phase: Any) -> SyntheticLab:
        plain = replace(source, proto=fold_batch_norms(source).proto)
        names = weighted_names(plain)
        costs = {name: (0.1, 0.2 if name in names[6:12] or not pays else 0.05) for name in names}
        lab = SyntheticLab(plain, costs, folder=folder, batches=options.batches)
        monkeypatch.setattr(SyntheticLab, "ready", lambda _: nullcontext(lab), raising=False)
        return lab

    def build(model: Path, *, options: Any, output: Path, phase: Any) -> None:
        output.write_bytes(model.read_bytes())

    monkeypatch.setattr("quantkit.tuning.speed.tune.TensorrtLab", open_lab)
    monkeypatch.setattr("quantkit.tuning.speed.tune.explain_no_gpu", lambda _: None)
    monkeypatch.setattr("quantkit.engines.build.build", build)
    for name, fake in (("explain_no_gpu", lambda _: None), ("machine_name", lambda _: "a GPU")):
        monkeypatch.setattr(f"quantkit.project.tune_step.{name}", fake)
    for reused in (False, True):
        plan = plan_run(settings(quantize=QuantizeSettings(repairs=())))
        store = StepStore(plan.output)
        store.folder.mkdir(parents=True, exist_ok=True)
        steps = RunSteps(plan, store, NoWatcher(), plan_steps(plan))
        outcome = tune_step(steps, statistics_step(steps))
        assert outcome is not None
        assert outcome.reused == reused
        assert any(note.startswith("tuning by time: ") for note in steps.notes)
        speed = json.loads(outcome.file("speed.json").read_text())
        assert (outcome.folder / "model.tuned.engine").exists() == pays == (speed["chosen"] == "cut")
        if pays:
            written = onnx.load(outcome.file("model.tuned.onnx"))
            assert any(node.op_type == "QuantizeLinear" for node in written.graph.node)


def test_tuning_takes_no_time_where_that_is_declined(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantkit.project.tune_step.explain_no_gpu", lambda _: None)
    plan = plan_run(settings(build={"tune_time": 0.0}))
    assert "tune" not in {step.name for step in plan_steps(plan)}
    assert "tune" in {step.name for step in plan_steps(plan_run(settings()))}


@pytest.mark.parametrize("what", ["model", "data"])
def test_nothing_is_kept_of_a_step_during_which_an_input_changed(what: str, place: Path) -> None:
    class Change(NoWatcher):
        def begin(self, step: str) -> None:
            assert step == "statistics"
            change()

    def change() -> None:
        if what == "data":
            image = sorted(place.glob("imgs/*/*.png"))[3]
            image.write_bytes(image.read_bytes() + b"1")
        else:
            proto = onnx.load("net/model.onnx")
            proto.graph.node[0].name += "2"
            onnx.save(proto, "net/model.onnx")

    with pytest.raises((ModelError, DataError), match="changed during the run"):
        run(settings(), watcher=Change())
    assert not (place / "net/model.run").exists()
