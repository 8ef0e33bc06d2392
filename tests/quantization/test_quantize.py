"""`quantkit quantize`: a Q/DQ model from statistics, from a table, with and without the data; what is refused."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper, parser

import quantkit
import quantkit.quantization.quantize as quantize_module
from quantkit import CalibrateOptions, DataOptions, QuantizeOptions
from quantkit.data import open_data
from quantkit.errors import ModelError, OutputError, StaleError, TableError, UsageError
from quantkit.graph import load_model
from quantkit.linting.registry import lint_model
from quantkit.qdq.float_reason import FloatCause
from quantkit.qdq.insertion import WeightForm
from quantkit.qdq.removal import remove_qdq
from quantkit.quantization.record import METADATA_KEY
from quantkit.repairs.registry import REPAIR_NAMES
from quantkit.rewrites.fold_batch_norm import fold_batch_norms
from quantkit.table import read_table
from tests.support.networks import BUNDLED, Command, network

Arrays = NDArray[Any]
CIFAR_TARGETS = {"resnet20": (32.0, 0.99), "mobilenetv2": (29.0, 0.985), "vit": (32.0, 0.985)}


def on_onnxruntime(model: Path | str | onnx.ModelProto, feeds: dict[str, Arrays]) -> Arrays:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
    return np.asarray(onnxruntime.InferenceSession(source, options, ["CPUExecutionProvider"]).run(None, feeds)[0])


def decibels(exact: Arrays, other: Arrays) -> float:
    return float(10 * np.log10(np.square(exact).sum() / max(float(np.square(exact - other).sum()), 1e-30)))


def pixels() -> Arrays:
    """Digits that no calibration has seen."""
    inputs = load_model(BUNDLED / "model.onnx").inputs
    feed, _ = open_data(BUNDLED / "test", inputs, quantkit.load_preprocess(BUNDLED / "preprocess.toml"), DataOptions())
    return np.concatenate([portion.batch["image"] for portion in feed.portions()])


# What comes out ---------------------------------------------------------------------------------------------------


def test_from_the_statistics_beside_the_model(calibrated: Path, quantkit_command: Command) -> None:
    done = quantkit_command("quantize", "net/model.onnx")
    assert "model.stats.safetensors by wmse" in done.stdout
    assert "wrote  net/model.int8.onnx" in done.stdout
    model = load_model("net/model.int8.onnx")
    onnx.checker.check_model(model.proto, full_check=True)
    assert [f for f in lint_model(model) if f.severity == "error"] == []
    exact, ours = (on_onnxruntime(f"net/{name}.onnx", {"image": pixels()}) for name in ("model", "model.int8"))
    assert decibels(exact, ours) > 20


def test_from_the_table_beside_the_model_where_a_calibrator_wrote_no_more(
    calibrated: Path, quantkit_command: Command
) -> None:
    Path("net/model.stats.safetensors").unlink()
    done = quantkit_command("quantize", "net/model.onnx")
    assert "model.calib verbatim" in done.stdout
    done = quantkit_command("quantize", "net/model.onnx", "--rule", "best", "--force", code=2)
    assert "the table model.calib does not allow --rule" in done.stderr
    assert "--backend onnxruntime" in done.stderr
    done = quantkit_command("quantize", "net/model.onnx", "--repair", "bias", "--force", code=2)
    assert "does not allow --repair" in done.stderr
    quantkit_command("quantize", "net/model.onnx", "--repair", "none", "--min-coverage", "0.5", "--force")


def test_json_tells_all_of_it(calibrated: Path, quantkit_json: Callable[..., Any]) -> None:
    document = quantkit_json("quantize", "net/model.onnx", "--rule", "best")
    table = read_table("net/model.calib")
    assert set(document["pairs"]) <= set(table.scales)
    assert set(document["rules"]) == set(document["pairs"])
    assert document["files"] == ["net/model.int8.onnx"]
    assert document["weights_as"] == "int8"
    assert document["coverage"] is None


@pytest.mark.slow
def test_the_same_input_gives_the_same_bytes(calibrated: Path) -> None:
    made = [
        quantkit.quantize(
            "net/model.onnx", f"{k}.onnx", statistics="net/model.stats.safetensors", data="imgs", preprocess=None
        )
        for k in range(2)
    ]
    assert made[0].pairs == made[1].pairs
    assert Path("0.onnx").read_bytes() == Path("1.onnx").read_bytes()


def test_every_scale_of_a_table_is_taken_as_it_is(calibrated: Path) -> None:
    made = quantkit.quantize("net/model.onnx", table="net/model.calib")
    table = read_table("net/model.calib")
    for tensor, scale in made.pairs.items():
        assert np.float32(scale).tobytes() == np.float32(table.scales[tensor]).tobytes()
    assert made.coverage is not None
    assert made.coverage.share == 1.0


def test_a_table_for_tensorrt_8_says_that_pairs_are_placed_for_a_newer_one(calibrated: Path) -> None:
    text = Path("net/model.calib").read_text()
    Path("old.calib").write_text(re.sub(r"^TRT-\d+", "TRT-8601", text))
    said = "the table is for TensorRT 8.6.1, and pairs are placed for 10.3.0"
    assert any(note.startswith(said) for note in quantkit.quantize("net/model.onnx", table="old.calib").notes)
    for given in ({"tensorrt_version": "10.3.0"}, {"tensorrt_version": "8.6.1"}):
        made = quantkit.quantize("net/model.onnx", table="old.calib", **given)
        assert not any("pairs are placed" in note for note in made.notes)
    assert not any("pairs are placed" in n for n in quantkit.quantize("net/model.onnx", table="net/model.calib").notes)


@pytest.mark.parametrize(("factor", "of_statistics"), [(1.5, False), (20.0, True)])
def test_scales_that_are_shared_are_reported(factor: float, of_statistics: bool, place: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["a"]), helper.make_node("MatMul", ["a", "w"], ["b"]),
        helper.make_node("Concat", ["a", "b"], ["j"], axis=1), helper.make_node("MatMul", ["j", "u"], ["y"]),
    ]  # fmt: skip
    eye = np.eye(4, dtype=np.float32)
    weights = {"v": eye, "w": eye * np.float32(factor), "u": np.concatenate([eye, eye])}
    onnx.save(network(nodes, {"x": ["N", 4]}, ["y"], weights), "joins.onnx")
    np.save("x.npy", np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32))
    quantkit.calibrate("joins.onnx", "x.npy", rules="minmax", output="joins.calib")
    for given, reported in (
        ({"table": "joins.calib"}, True), ({"statistics": "joins.stats.safetensors"}, of_statistics)
    ):  # fmt: skip
        made = quantkit.quantize("joins.onnx", **given, options=QuantizeOptions(rule="minmax", repairs=()))
        own = read_table("joins.calib").scales
        assert made.pairs["a"] == made.pairs["j"] == pytest.approx(own["j"])
        notes = [note for note in made.notes if "share the scale of a Concat" in note]
        assert len(notes) == reported
        for note in notes:
            assert note.startswith("1 tensors share")
            assert f"a has {own['j']:.4g}, its own is {own['a']:.4g} (the largest factor, {factor:.3g})" in note


def test_the_way_there_and_back(calibrated: Path) -> None:
    options = QuantizeOptions(weights=WeightForm.FLOAT)
    made = quantkit.quantize("net/model.onnx", "q.onnx", table="net/model.calib", options=options)
    back = remove_qdq(load_model("q.onnx"))
    assert back.scales == dict(made.pairs)
    source = fold_batch_norms(load_model("net/model.onnx")).proto
    del back.proto.metadata_props[:], source.metadata_props[:]
    assert back.proto.graph == source.graph


def test_int8_and_float_weights_compute_the_same(calibrated: Path) -> None:
    protos = {
        form: quantkit.quantize(
            "net/model.onnx", statistics="net/model.stats.safetensors", options=QuantizeOptions(weights=form)
        ).proto
        for form in (WeightForm.FLOAT, WeightForm.INT8)
    }
    x = {"image": pixels()}
    np.testing.assert_array_equal(*(on_onnxruntime(proto, x) for proto in protos.values()))
    sizes = {form: proto.ByteSize() for form, proto in protos.items()}
    assert sizes[WeightForm.INT8] < 0.6 * sizes[WeightForm.FLOAT]


@pytest.mark.parametrize(("version", "form"), [("8.6.1", "float"), ("10.3.0", "int8"), ("11.4.0", "int8")])
def test_weights_stand_as_the_target_takes_them(version: str, form: str) -> None:
    assert QuantizeOptions(tensorrt_version=version).form.value == form


def test_the_file_tells_what_it_was_made_of(calibrated: Path) -> None:
    made = quantkit.quantize("net/model.onnx", statistics="net/model.stats.safetensors")
    record = json.loads(next(p.value for p in made.proto.metadata_props if p.key == METADATA_KEY))
    assert record["model"] == load_model("net/model.onnx").sha256
    assert (record["scales"]["rule"], record["repairs"], record["policy"]) == ("wmse", ["bias"], "tensorrt")


def test_repairs_lower_the_error(calibrated: Path) -> None:
    quantkit.calibrate("net/model.onnx", "imgs", output="all.calib", options=CalibrateOptions(data=DataOptions()))
    exact = on_onnxruntime("net/model.onnx", {"image": pixels()})
    errors = {}
    for repairs in ((), REPAIR_NAMES):
        made = quantkit.quantize(
            "net/model.onnx",
            statistics="net/model.stats.safetensors",
            data="imgs",
            options=QuantizeOptions(repairs=repairs),
        )
        assert set(made.repairs) == set(repairs)
        errors[repairs] = decibels(exact, on_onnxruntime(made.proto, {"image": pixels()}))
    assert errors[REPAIR_NAMES] > errors[()]


def test_data_alone_is_enough(place: Path) -> None:
    made = quantkit.quantize("net/model.onnx", data="imgs", rule="mse")
    assert made.source == "the data by mse"
    assert list(made.repairs) == ["round", "bias"]


def test_the_rest_can_be_float16(calibrated: Path) -> None:
    made = quantkit.quantize(
        "net/model.onnx", statistics="net/model.stats.safetensors", options=QuantizeOptions(fp16=True)
    )
    onnx.checker.check_model(made.proto, full_check=True)
    kinds = {tensor.data_type for tensor in made.proto.graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds
    exact = on_onnxruntime("net/model.onnx", {"image": pixels()})
    assert decibels(exact, on_onnxruntime(made.proto, {"image": pixels()})) > 20


def test_nodes_stay_float_by_name_pattern_operator_and_file(
    calibrated: Path, quantkit_json: Callable[..., Any]
) -> None:
    operators = {n.name or n.output[0]: n.op_type for n in load_model("net/model.onnx").proto.graph.node}
    convolutions = [name for name, operator in operators.items() if operator == "Conv"]
    Path("keep.txt").write_text(f"{convolutions[0]}  # the first\n")
    for pattern, count in (("Conv", len(convolutions)), (convolutions[0], 1), ("@keep.txt", 1)):
        document = quantkit_json("quantize", "net/model.onnx", "--exclude", pattern, "--force")
        assert list(document["left"].values()).count("excluded") == count


def test_external_weights_get_a_file_of_their_own(calibrated: Path) -> None:
    Path("ext").mkdir()
    proto = onnx.load("net/model.onnx")
    onnx.save(proto, "ext/model.onnx", save_as_external_data=True, location="model.data", size_threshold=0)
    statistics = quantkit.calibrate("ext/model.onnx", "imgs", preprocess="net/preprocess.toml").statistics
    made = quantkit.quantize("ext/model.onnx", "out.onnx", statistics=statistics)
    assert [path.name for path in made.files] == ["out.onnx", "out.onnx.data"]
    exact, ours = (on_onnxruntime(path, {"image": pixels()}) for path in ("net/model.onnx", "out.onnx"))
    assert decibels(exact, ours) > 20


# What is refused --------------------------------------------------------------------------------------------------


def test_a_network_with_qdq(calibrated: Path) -> None:
    quantkit.quantize("net/model.onnx", "q.onnx", table="net/model.calib")
    with pytest.raises(ModelError, match="already has Q/DQ"):
        quantkit.quantize("q.onnx", table="net/model.calib")


def other_network(path: Path) -> Path:
    onnx.save(
        network(
            [helper.make_node("Conv", ["a", "w"], ["b"])],
            {"a": [1, 3, 8, 8]},
            ["b"],
            {"w": np.ones((4, 3, 3, 3), np.float32)},
        ),
        path,
    )
    return path


def test_statistics_and_tables_of_another_network(calibrated: Path) -> None:
    other = other_network(calibrated / "other.onnx")
    with pytest.raises(StaleError, match="belongs to another network"):
        quantkit.quantize(other, statistics="net/model.stats.safetensors")
    with pytest.raises(StaleError, match="belongs to another network"):
        quantkit.quantize(other, table="net/model.calib")
    Path("net/model.calib.json").unlink()
    with pytest.raises(TableError, match="covers 0% of the float tensors"):
        quantkit.quantize(other, table="net/model.calib")
    with pytest.raises(TableError, match="covers 0%") as caught:  # nothing at all fits, whatever share is accepted
        quantkit.quantize(other, table="net/model.calib", options=QuantizeOptions(min_coverage=0.0))
    assert "--min-coverage" not in caught.value.remedy
    with pytest.raises(TableError, match="covers 0%"):
        quantkit.adopt("net/model.calib", other, min_coverage=0.0)


def bounded_network(folder: Path) -> Path:
    """Two convolutions with a ReLU6 between them."""
    random = np.random.default_rng(5)
    text = "(float[N, 3, 8, 8] x) => (float[N, 4, 8, 8] y) { c = Conv(x, v) r = Clip(c, low, high) y = Conv(r, w) }"
    proto = parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> net {text}')
    for node, name in zip(proto.graph.node, ("first", "act", "second"), strict=True):
        node.name = name
    stored = {"v": random.normal(size=(4, 3, 1, 1)) * 4, "w": random.normal(size=(4, 4, 1, 1)), "low": 0.0, "high": 6.0}
    for name, values in stored.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(values), name))
    onnx.save(proto, folder / "bounded.onnx")
    return folder / "bounded.onnx"


def test_a_clip_after_a_float_layer_is_written_as_tensorrt_reads_it(tmp_path: Path) -> None:
    path = bounded_network(tmp_path)
    batch = {"x": np.random.default_rng(1).normal(size=(32, 3, 8, 8)).astype(np.float32)}
    statistics = quantkit.calibrate(path, [batch]).statistics
    whole = quantkit.quantize(path, statistics=statistics)
    assert [node.op_type for node in whole.proto.graph.node].count("Clip") == 1
    output = tmp_path / "partly.onnx"
    partly = quantkit.quantize(path, output, statistics=statistics, options=QuantizeOptions(exclude=("first",)))
    assert [n for n in partly.notes if "is split into two nodes" in n]
    operators = [node.op_type for node in partly.proto.graph.node]
    assert ("Clip" in operators, "Relu" in operators, "Min" in operators) == (False, True, True)
    assert lint_model(load_model(output)) == ()
    exact, ours = (on_onnxruntime(f, batch) for f in (path, output))
    assert decibels(exact, ours) > 30
    found = quantkit.layers(path, against=output, data=[batch])
    assert [layer.node for layer in found.layers] == ["second"]


def test_nothing_to_take_scales_from(place: Path, quantkit_command: Command) -> None:
    done = quantkit_command("quantize", "net/model.onnx", code=2)
    assert "there are no statistics of net/model.onnx" in done.stderr
    with pytest.raises(UsageError, match="none is given"):
        quantkit.quantize("net/model.onnx")


def test_statistics_that_are_gone_come_back_as_the_message_says(calibrated: Path, quantkit_command: Command) -> None:
    (calibrated / "net/model.stats.safetensors").unlink()
    line = ("quantize", "net/model.onnx", "--rule", "minmax")
    said = quantkit_command(*line, code=2).stderr
    remedy = said[said.index("quantkit calibrate") :].split(",")[0].replace("…", "imgs")
    quantkit_command(*remedy.split()[1:])
    quantkit_command(*line)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"table": "net/model.calib", "statistics": "net/model.stats.safetensors"}, "verbatim"),
        ({"table": "net/model.calib", "data": "imgs"}, "verbatim"),
    ],
)
def test_a_table_stands_alone(calibrated: Path, given: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        quantkit.quantize("net/model.onnx", **given)


def test_repairs_that_lack_their_source(calibrated: Path) -> None:
    for repairs, given in ((("round",), "statistics"), (("bias",), "table")):
        path = "net/model.stats.safetensors" if given == "statistics" else "net/model.calib"
        with pytest.raises(UsageError, match=f"'{repairs[0]}' needs"):
            quantkit.quantize("net/model.onnx", **{given: path}, options=QuantizeOptions(repairs=repairs))


def test_an_output_that_is_there_or_cannot_be(calibrated: Path) -> None:
    Path("there.onnx").write_bytes(b"mine")
    with pytest.raises(StaleError, match="already exists"):
        quantkit.quantize("net/model.onnx", "there.onnx", table="net/model.calib")
    assert Path("there.onnx").read_bytes() == b"mine"
    with pytest.raises(OutputError, match="cannot write"):
        quantkit.quantize("net/model.onnx", "no/such/folder.onnx", table="net/model.calib")


def test_weights_with_nan_leave_nothing(calibrated: Path) -> None:
    proto = onnx.load("net/model.onnx")
    weight = next(t for t in proto.graph.initializer if len(t.dims) == 4)
    values = numpy_helper.to_array(weight).copy()
    values.flat[0] = np.nan
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(proto, "nan.onnx")
    Path("net/model.calib.json").unlink()
    with pytest.raises(ModelError, match="NaN or Inf"):
        quantkit.quantize("nan.onnx", "out.onnx", table="net/model.calib")
    assert sorted(path.name for path in calibrated.glob("*out*")) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_leaves_nothing(calibrated: Path, tmp_path_factory: Any, number: signal.Signals) -> None:
    scratch = tmp_path_factory.mktemp("scratch")
    code = (
        "import os, sys, quantkit.quantization.repair_run as r, quantkit.cli as c\n"
        f"def stop(*a, **k): os.kill(os.getpid(), {int(number)})\n"
        "r.statistics_after_rescaling = stop\n"
        "sys.argv = 'quantkit quantize net/model.onnx --data imgs --repair equalize -o out.onnx'.split()\n"
        "c.main()\n"
    )
    environment = {**os.environ, "TMPDIR": str(scratch)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in (*calibrated.glob("*out*"), *scratch.glob("quantkit-*"))) == []


@pytest.mark.parametrize(
    "idle", [["--limit", "7"], ["--preprocess", "unit"], ["--min-coverage", "0.5"], ["--rule", "mse", "--table", "t"]]
)
def test_options_that_would_change_nothing(calibrated: Path, quantkit_command: Command, idle: list[str]) -> None:
    done = quantkit_command("quantize", "net/model.onnx", *idle, code=2)
    assert f"{idle[0]} has no effect" in done.stderr


def test_an_output_that_is_an_input(calibrated: Path, quantkit_command: Command) -> None:
    before = Path("net/model.onnx").read_bytes()
    done = quantkit_command("quantize", "net/model.onnx", "-o", "net/model.onnx", "--force", code=2)
    assert "would replace its own source" in done.stderr
    assert Path("net/model.onnx").read_bytes() == before


def test_what_stays_float_is_not_repaired(calibrated: Path) -> None:
    made = quantkit.quantize(
        "net/model.onnx", data="imgs", options=QuantizeOptions(exclude=("Conv",), weights=WeightForm.FLOAT)
    )
    assert set(made.repairs["round"].gains).isdisjoint(made.left)
    plain = {t.name: t for t in fold_batch_norms(load_model("net/model.onnx")).proto.graph.initializer}
    kept = [t for t in made.proto.graph.initializer if t.name in plain and len(t.dims) == 4]
    assert kept
    for tensor in kept:
        np.testing.assert_array_equal(numpy_helper.to_array(tensor), numpy_helper.to_array(plain[tensor.name]))


# Trained networks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CIFAR_TARGETS)
def test_trained_networks(shared: Path, name: str) -> None:
    """256 images here; all 10,000 are in benchmarks/results/accuracy.md."""
    path, data = shared / "models" / f"{name}.onnx", shared / "golden" / "networks" / "calibration_512.npz"
    options = CalibrateOptions(data=DataOptions(limit=128))
    statistics = quantkit.calibrate(path, data, preprocess="cifar10", options=options).statistics
    made = quantkit.quantize(path, statistics=statistics)
    spec = quantkit.PRESETS["cifar10"]
    raw = np.load(data)["x"][-128:]
    images = ((raw * np.float32(1 / 255) - np.float32(spec.mean)) / np.float32(spec.std)).transpose(0, 3, 1, 2)
    exact, ours = (on_onnxruntime(m, {"image": np.ascontiguousarray(images)}) for m in (path, made.proto))
    least, agreement = CIFAR_TARGETS[name]
    assert decibels(exact, ours) > least - 1.5
    assert (exact.argmax(1) == ours.argmax(1)).mean() >= agreement - 1 / len(images), "a prediction may turn"


def test_a_detector_keeps_its_head_in_float(shared: Path) -> None:
    path = shared / "models" / "ultraface.onnx"
    data = np.random.default_rng(0).normal(size=(2, 3, 240, 320)).astype(np.float32)
    batches = [{"input": image[None]} for image in data]
    made = quantkit.quantize(path, statistics=quantkit.calibrate(path, batches).statistics)
    heads = [node for node, why in made.left.items() if why.cause is FloatCause.DETECTION_HEAD]
    assert len(heads) == 8
    exact, ours = (on_onnxruntime(m, {"input": data[:1]}) for m in (path, made.proto))
    assert decibels(exact, ours) > 20


def test_a_network_that_would_not_load_is_not_written(calibrated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finish = quantize_module.finish_model

    def break_model(*arguments: Any) -> Any:
        proto, notes = finish(*arguments)
        proto.graph.node[-1].attribute.add(name="no_such_attribute", i=1, type=onnx.AttributeProto.INT)
        return proto, notes

    monkeypatch.setattr(quantize_module, "finish_model", break_model)
    before = sorted(Path("net").iterdir())
    with pytest.raises(ModelError, match="the network that would be written does not run") as caught:
        quantkit.quantize("net/model.onnx", "net/broken.onnx", statistics="net/model.stats.safetensors")
    assert "Unrecognized attribute" in caught.value.problem
    assert "model.onnx" not in caught.value.problem
    assert sorted(Path("net").iterdir()) == before


def test_what_is_written_was_run_on_the_data_or_on_the_recorded_ranges(calibrated: Path) -> None:
    known = quantkit.quantize("net/model.onnx", "a.onnx", statistics="net/model.stats.safetensors").trial
    data = quantkit.quantize("net/model.onnx", "b.onnx", data="imgs").trial
    assert known is not None
    assert data is not None
    assert (known.made_up, data.made_up) == (True, False)
    assert data.sqnr_db > 20
    assert not known.notes, "noise is no data"
    assert quantkit.quantize("net/model.onnx", statistics="net/model.stats.safetensors").trial is None


@pytest.mark.parametrize("shape", [(0, 4), (4, 0)])
def test_operators_whose_weights_hold_no_values_stay_float(shape: tuple[int, int], place: Path) -> None:
    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> net (float[N, 4] x) => (float[N, K] y, float[N, L] z) '
        "{ y = MatMul(x, w) r = Slice(x, zero, end, one) z = MatMul(r, e) }"
    )
    weights = {"w": np.eye(4, dtype=np.float32), "e": np.zeros(shape, np.float32)}
    numbers = {"zero": [0], "one": [1], "end": [shape[0]]}
    weights |= {name: np.array(value) for name, value in numbers.items()}
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    Path("net.onnx").write_bytes(proto.SerializeToString())
    np.save("x.npy", np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32))
    made = quantkit.quantize("net.onnx", "int8.onnx", data="x.npy")
    assert made.weights == ("w",)
    assert made.int8_layers == (1, 2)
    assert list(made.left) == ["z"]


def test_an_error_of_onnxruntime_names_the_file_of_the_user(place: Path) -> None:
    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17, "my": 1]> net (float[N, 4] x) => (float[N, 4] y) '
        "{ h = MatMul(x, w) y = my.Odd(h) }"
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.eye(4, dtype=np.float32), "w"))
    Path("net.onnx").write_bytes(proto.SerializeToString())
    np.save("x.npy", np.ones((8, 4), np.float32))
    with pytest.raises(ModelError) as caught:
        quantkit.quantize("net.onnx", "int8.onnx", data="x.npy")
    assert caught.value.problem.startswith("onnxruntime cannot load net.onnx: ")
    assert not Path("int8.onnx").exists()
