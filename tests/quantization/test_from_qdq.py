"""`quantkit table from-qdq`: a table and the plain model of Q/DQ files, by quantkit and by onnxruntime."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

import quantkit
from quantkit import CalibrateOptions
from quantkit.engines.table_scales import find_table_scales
from quantkit.errors import ModelError, OutputError, StaleError, UsageError
from quantkit.graph import load_model, watched_tensors
from quantkit.provenance import read_provenance
from quantkit.qdq.insert import insert_qdq
from quantkit.qdq.reader import has_qdq
from quantkit.quantization.from_qdq import kept_changes_text
from quantkit.quantization.record import METADATA_KEY
from quantkit.table import Algorithm, coverage, read_table
from tests.support.networks import Command, network

Arrays = NDArray[Any]
RANDOM = np.random.default_rng(5)
CONV = RANDOM.normal(size=(4, 3, 3, 3)).astype(np.float32)
DENSE = RANDOM.normal(size=(144, 5)).astype(np.float32)
BIAS = RANDOM.normal(size=4).astype(np.float32)
NODES = [
    helper.make_node("Conv", ["x", "w", "b"], ["c"], name="conv"),
    helper.make_node("Relu", ["c"], ["r"], name="relu"),
    helper.make_node("MaxPool", ["r"], ["p"], name="pool", kernel_shape=[1, 1]),
    helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
    helper.make_node("MatMul", ["f", "d"], ["y"], name="dense"),
]


def small() -> onnx.ModelProto:
    return network(NODES, {"x": [2, 3, 8, 8]}, ["y"], {"w": CONV, "b": BIAS, "d": DENSE})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a float network and the same with Q/DQ."""
    monkeypatch.chdir(tmp_path)
    onnx.save(small(), "net.onnx")
    onnx.save(insert_qdq(load_model("net.onnx"), {"x": 0.1, "f": 0.25}).proto, "net.int8.onnx")
    return tmp_path


def on_onnxruntime(path: Path | str, x: Arrays) -> Arrays:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    (result,) = session.run(None, {session.get_inputs()[0].name: x})
    return np.asarray(result)


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


# What is written --------------------------------------------------------------------------------------------------


def test_a_table_its_provenance_and_the_plain_model(here: Path) -> None:
    made = quantkit.from_qdq("net.int8.onnx", "net.calib", tensorrt_version="8.6.1")
    assert (made.table, made.model, made.provenance) == (
        Path("net.calib"),
        Path("net.float.onnx"),
        Path("net.calib.json"),
    )
    assert Path("net.float.onnx").read_bytes() == Path("net.onnx").read_bytes()
    table = read_table("net.calib")
    assert table == made.scales or dict(table.scales) == dict(made.scales.scales)
    assert table.header.text == "TRT-8601-EntropyCalibration2"
    assert dict(table.scales) == {
        "x": float(np.float32(0.1)), "c": 0.25, "r": 0.25, "p": 0.25, "f": 0.25,
    }  # fmt: skip
    assert list(table.scales) == ["x", "c", "r", "p", "f"], "in the network's order"
    assert dict(made.inferred) == {"c": 0.25, "r": 0.25, "p": 0.25}
    assert made.coverage == coverage(table, watched_tensors(load_model("net.float.onnx")).tensors)
    assert made.coverage.missing == ("y",)
    assert set(made.weights) == {"w", "d"}
    assert made.deviating == ()
    first = files(here)
    quantkit.from_qdq("net.int8.onnx", "net.calib", tensorrt_version="8.6.1", force=True)
    assert files(here) == first, "the same input gives the same bytes"


def test_only_the_scales_of_the_file(here: Path) -> None:
    made = quantkit.from_qdq("net.int8.onnx", "t.calib", infer=False, algorithm=Algorithm.MIN_MAX, plain="plain.onnx")
    assert list(read_table("t.calib").scales) == ["x", "f"]
    assert made.scales.header.algorithm is Algorithm.MIN_MAX
    assert not made.inferred
    assert Path("plain.onnx").exists()
    assert not Path("t.float.onnx").exists()


def test_the_provenance_is_of_the_plain_model(here: Path) -> None:
    quantkit.from_qdq("net.int8.onnx", "net.calib")
    record = read_provenance(Path("net.calib.json"))
    assert record is not None
    plain, source = load_model("net.float.onnx"), load_model("net.int8.onnx")
    assert (record.origin, record.model.file, record.model.sha256) == ("qdq", "net.float.onnx", plain.sha256)
    assert record.source is not None
    assert (record.source.file, record.source.sha256) == ("net.int8.onnx", source.sha256)
    found = find_table_scales(plain, quantkit.BuildOptions(precision=quantkit.Precision("int8")), "net.calib")
    assert found is not None
    assert found.provenance == record
    with pytest.raises(StaleError, match="made for another network"):
        find_table_scales(source, quantkit.BuildOptions(precision=quantkit.Precision("int8")), "net.calib")


def test_calibrate_does_not_take_it_for_its_own(here: Path) -> None:
    quantkit.from_qdq("net.int8.onnx", "net.calib", plain="plain.onnx")
    np.savez("data.npz", x=np.ones((2, 3, 8, 8), np.float32))
    with pytest.raises(StaleError, match=r"net\.calib was taken from a Q/DQ model, not calibrated here"):
        quantkit.calibrate("plain.onnx", "data.npz", output="net.calib")


# Refusals ---------------------------------------------------------------------------------------------------------


def refused(kind: type[Exception], match: str, *arguments: Any, **options: Any) -> None:
    """A call that fails and leaves everything as it was."""
    before = files(Path())
    with pytest.raises(kind, match=match):
        quantkit.from_qdq(*arguments, **options)
    assert files(Path()) == before


def save(text_nodes: list[Any], weights: dict[str, Any], name: str = "given.onnx") -> str:
    onnx.save(network(text_nodes, {"x": [2, 3, 8, 8]}, ["y"], weights), name)
    return name


def test_nothing_that_is_there_is_replaced(here: Path) -> None:
    Path("there.calib").write_text("mine")
    refused(StaleError, r"there\.calib already exists", "net.int8.onnx", "there.calib")
    refused(StaleError, r"net\.onnx already exists", "net.int8.onnx", "t.calib", plain="net.onnx")
    refused(UsageError, "have to be different files", "net.int8.onnx", "t.calib", plain="net.int8.onnx", force=True)
    refused(UsageError, "have to be different files", "net.int8.onnx", "t.calib", plain="t.calib.json", force=True)
    refused(OutputError, "cannot write", "net.int8.onnx", "nowhere/t.calib", plain="p.onnx")


def test_a_failing_write_leaves_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain model is written before the table, whose folder is missing."""
    Path("p.onnx").write_text("mine")
    refused(OutputError, "cannot write", "net.int8.onnx", "nowhere/t.calib", plain="p.onnx", force=True)
    assert Path("p.onnx").read_text() == "mine"


def test_a_model_without_qdq(here: Path) -> None:
    refused(ModelError, r"net\.onnx has no QuantizeLinear and no DequantizeLinear", "net.onnx", "t.calib")


def test_headers_that_cannot_be(here: Path) -> None:
    refused(UsageError, "Legacy", "net.int8.onnx", "t.calib", algorithm=Algorithm.LEGACY)
    refused(UsageError, "reads no calibration tables", "net.int8.onnx", "t.calib", tensorrt_version="11.0")


S, Z = np.float32(0.1), np.int8(0)


def test_nodes_that_stay_are_an_error(here: Path) -> None:
    given = save(
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            helper.make_node("MaxPool", ["q"], ["m"], name="pool", kernel_shape=[1, 1]),
            helper.make_node("DequantizeLinear", ["m", "s", "z"], ["y"]),
        ],
        {"s": S, "z": Z},
    )
    refused(ModelError, r"given\.onnx: Q/DQ node 'q' cannot be removed: MaxPool pool reads its integers, and 1 more",
            given, "t.calib")  # fmt: skip


def only_float(given: str, why: str) -> None:
    """Check that from-qdq writes the float model alone, which can be calibrated, and says why there is no table."""
    before = files(Path()).keys()
    made = quantkit.from_qdq(given, "t.calib", force=True)
    assert (made.table, made.provenance, len(made.scales)) == (None, None, 0)
    assert files(Path()).keys() - before <= {"t.float.onnx"}
    (text,) = (text for text in made.notes if "no table is written" in text)
    assert why in text
    assert "quantkit calibrate t.float.onnx --data DATA" in text
    assert not has_qdq(load_model("t.float.onnx"))
    x = RANDOM.normal(size=(2, 3, 8, 8)).astype(np.float32)
    quantkit.calibrate("t.float.onnx", [{"x": x}], output="again.calib", options=CalibrateOptions(force=True))


def test_scales_that_no_table_holds_leave_the_float_model(here: Path) -> None:
    pair = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
    ]
    given = save([*pair, helper.make_node("Relu", ["d"], ["y"])], {"s": S, "z": np.uint8(7)})
    only_float(given, "'x': its zero point is 7 (uint8) (1 in all)")
    given = save(
        [helper.make_node("DequantizeLinear", ["w", "s", "z"], ["d"]), helper.make_node("Conv", ["x", "d"], ["y"])],
        {"w": np.ones((4, 3, 1, 1), np.int8), "s": S, "z": Z},
    )
    only_float(given, "only weights have Q/DQ")


def test_one_tensor_that_no_table_holds_is_reported(here: Path) -> None:
    proto = onnx.load("net.int8.onnx")
    for tensor in proto.graph.initializer:
        if tensor.name == "x_zero_point":
            tensor.CopyFrom(numpy_helper.from_array(np.int8(1), tensor.name))
    onnx.save(proto, "odd.onnx")
    made = quantkit.from_qdq("odd.onnx", "t.calib")
    assert dict(made.unscaled) == {"x": "its zero point is 1 (int8)"}
    assert "x" not in read_table("t.calib").scales
    assert any("'x' gets no scale" in note for note in made.notes)


# Weights outside the model ----------------------------------------------------------------------------------------


def test_weights_outside_are_found_again_or_it_is_refused(here: Path) -> None:
    Path("deep").mkdir()
    proto = onnx.load("net.int8.onnx")
    onnx.save(proto, "deep/big.onnx", save_as_external_data=True, location="big.data", size_threshold=100)
    with pytest.raises(
        OutputError, match=r"t\.float\.onnx would not find its weights, which are in big\.data"
    ) as caught:
        quantkit.from_qdq("deep/big.onnx", "t.calib")
    assert "--model deep/t.float.onnx" in caught.value.remedy
    assert not list(here.glob("t.*"))
    with pytest.raises(UsageError, match=r"deep/big\.data holds weights of deep/big\.onnx"):
        quantkit.from_qdq("deep/big.onnx", "t.calib", plain="deep/big.data", force=True)
    made = quantkit.from_qdq("deep/big.onnx", "t.calib", plain="deep/plain.onnx")
    assert dict(made.weights) == {"w": pytest.approx(0, abs=1e-6), "d": pytest.approx(0, abs=1e-6)}
    assert Path("deep/plain.onnx").stat().st_size < 1500, "the weights are where they were"
    x = RANDOM.normal(size=(2, 3, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(on_onnxruntime("deep/plain.onnx", x), on_onnxruntime("net.onnx", x))
    record = read_provenance(Path("t.calib.json"))
    assert record is not None
    assert record.model.sha256 == load_model("deep/plain.onnx").sha256


# onnxruntime's files ----------------------------------------------------------------------------------------------


class Images(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        self._batches: Iterator[dict[str, Arrays]] = iter(
            [{"x": RANDOM.normal(size=(2, 3, 8, 8)).astype(np.float32)} for _ in range(3)]
        )

    def get_next(self) -> dict[str, Arrays] | None:
        return next(self._batches, None)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
def test_onnxruntimes_s8s8_models(bias: bool, per_channel: bool, here: Path) -> None:
    quantize_static(
        "net.onnx", "ort.onnx", Images(), quant_format=QuantFormat.QDQ, per_channel=per_channel,
        activation_type=QuantType.QInt8, weight_type=QuantType.QInt8, calibrate_method=CalibrationMethod.MinMax,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": bias},
    )  # fmt: skip
    made = quantkit.from_qdq("ort.onnx", "ort.calib")
    given, plain = onnx.load("ort.onnx"), onnx.load("ort.float.onnx")
    onnx.checker.check_model(plain, full_check=True)
    assert [n.op_type for n in plain.graph.node] == [n.op_type for n in NODES], "no Q/DQ, in the same order"
    assert {w.name for w in plain.graph.initializer} == {"w", "b", "d"}
    values = {w.name: numpy_helper.to_array(w) for w in given.graph.initializer}
    theirs = {n.input[0]: float(values[n.input[1]]) for n in given.graph.node if n.op_type == "QuantizeLinear"}
    theirs = {name.replace("y_QuantizeLinear_Input", "y"): scale for name, scale in theirs.items()}
    table = read_table("ort.calib").scales
    assert {name: table[name] for name in theirs} == theirs
    assert made.coverage.share == 1.0
    assert made.biases == int(bias)
    assert set(made.weights) == {"w", "d"}
    assert (made.deviating == ()) == per_channel, "one scale for all channels is not what TensorRT takes"
    for note in () if per_channel else ("2 weights had scales that differ by more than 1%",):
        assert note in " ".join(made.notes)
    x = np.random.default_rng(3).normal(size=(2, 3, 8, 8)).astype(np.float32)
    exact, ours = on_onnxruntime("net.onnx", x), on_onnxruntime("ort.float.onnx", x)
    assert np.abs(ours - exact).max() <= 0.05 * np.abs(exact).max(), "only weights were rounded"
    originals = {"w": CONV, "b": BIAS, "d": DENSE}
    floats = {w.name: numpy_helper.to_array(w) for w in plain.graph.initializer}
    steps = {n.input[0].removesuffix("_quantized"): values[n.input[1]].max() for n in given.graph.node
             if n.op_type == "DequantizeLinear" and n.input[0] in values}  # fmt: skip
    assert steps.keys() == {"w", "d", "b"} - (set() if bias else {"b"})
    for name, original in originals.items():
        assert np.abs(floats[name] - original).max() <= steps.get(name, 0.0) / 2 * 1.001, "rounded to half a step"


def test_onnxruntimes_default_leads_back_to_the_float_model(here: Path) -> None:
    quantize_static("net.onnx", "ort.onnx", Images(), activation_type=QuantType.QUInt8)
    only_float("ort.onnx", "'x': its zero point is")


def test_advice_of_calibrate_and_quantize_depends_on_whether_there_is_a_way_back(here: Path) -> None:
    """from-qdq is named where it leads to the float network, and the reason where it cannot."""
    for fails in (lambda: quantkit.calibrate("net.int8.onnx", "x.npy"), lambda: quantkit.quantize("net.int8.onnx")):
        with pytest.raises(ModelError) as caught:
            fails()
        assert "quantkit table from-qdq" in caught.value.remedy
    given = save(
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            helper.make_node("MaxPool", ["q"], ["m"], name="pool", kernel_shape=[1, 1]),
            helper.make_node("DequantizeLinear", ["m", "s", "z"], ["y"]),
        ],
        {"s": S, "z": Z},
    )
    for fails in (lambda: quantkit.calibrate(given, "x.npy"), lambda: quantkit.quantize(given)):
        with pytest.raises(ModelError) as caught:
            fails()
        assert "from-qdq" not in caught.value.remedy
        assert "MaxPool pool reads its integers" in caught.value.remedy


def test_onnxruntimes_asymmetric_models_keep_their_relus(here: Path) -> None:
    x = np.clip(RANDOM.normal(size=(2, 3, 8, 8)), -2, 2).astype(np.float32)
    images = Images()
    images._batches = iter([{"x": x}])
    quantize_static("net.onnx", "ort.onnx", images, activation_type=QuantType.QInt8, per_channel=True)
    assert "Relu" not in {node.op_type for node in onnx.load("ort.onnx").graph.node}
    made = quantkit.from_qdq("ort.onnx", "ort.calib")
    plain = onnx.load("ort.float.onnx")
    onnx.checker.check_model(plain, full_check=True)
    assert [node.op_type for node in plain.graph.node] == [node.op_type for node in NODES]
    exact, ours = on_onnxruntime("net.onnx", x), on_onnxruntime("ort.float.onnx", x)
    assert np.abs(ours - exact).max() <= 0.05 * np.abs(exact).max(), "only weights were rounded"
    assert any("1 ReLUs that had been replaced" in note for note in made.notes)


def test_integer_operators_are_refused(here: Path) -> None:
    quantize_static("net.onnx", "ort.onnx", Images(), quant_format=QuantFormat.QOperator,
                    activation_type=QuantType.QInt8)  # fmt: skip
    refused(ModelError, "Q/DQ node 'x_QuantizeLinear' cannot be removed: QLinearConv conv_quant reads its integers",
            "ort.onnx", "t.calib")  # fmt: skip


# The command ------------------------------------------------------------------------------------------------------


def test_the_command(here: Path, quantkit_command: Command) -> None:
    done = quantkit_command("table", "from-qdq", "net.int8.onnx", "-o", "net.calib", "--tensorrt-version", "8.6.1")
    lines = done.stdout.splitlines()
    assert lines.pop(3).startswith("tried    loads and runs on made-up input, which says nothing")
    assert lines == [
        "scales   2 of the file, 3 inferred from neighbours",
        "covered  5 of 6 float tensors, 83.3%",
        "weights  2 lost their own scales, TensorRT uses max|w|/127 per output channel",
        "note     1 float tensors have no scale, because the Q/DQ model does not quantize them; "
        "quantkit build needs --min-coverage 0.83 or less for this table",
        "wrote    net.float.onnx",
        "wrote    net.calib",
        "wrote    net.calib.json",
    ]
    shown = quantkit_command("table", "show", "net.calib").stdout
    assert "qdq, model net.float.onnx" in shown
    assert "scales of net.int8.onnx" in shown
    done = quantkit_command("table", "from-qdq", "net.int8.onnx", "-o", "net.calib", code=1)
    assert "net.calib already exists" in done.stderr


def test_the_command_as_json(here: Path, quantkit_json: Callable[..., Any]) -> None:
    made = quantkit_json(
        "table", "from-qdq", "net.int8.onnx", "-o", "a.calib", "--model", "b.onnx", "--no-infer",
        "--algorithm", "MinMaxCalibration", "--tensorrt-version", "10.3",
    )  # fmt: skip
    assert made["header"] == "TRT-100300-MinMaxCalibration"
    assert (made["table"], made["model"], made["provenance"]) == ("a.calib", "b.onnx", "a.calib.json")
    assert (made["scales"], made["inferred"], made["missing"]) == (2, {}, ["c", "r", "p", "y"])
    assert set(made["weights"]) == {"w", "d"}
    assert json.loads(Path("a.calib.json").read_text())["origin"] == "qdq"


# Trained networks -------------------------------------------------------------------------------------------------


@pytest.mark.shared
def test_resnet20_with_tensorrts_own_table(here: Path, shared: Path) -> None:
    original = shared / "models" / "resnet20.onnx"
    golden = read_table(shared / "golden" / "networks" / "resnet20_entropy2.cache")
    pairs = insert_qdq(load_model(original), golden.scales)
    onnx.save(pairs.proto, "resnet20.int8.onnx")
    made = quantkit.from_qdq("resnet20.int8.onnx", "resnet20.calib")
    table = read_table("resnet20.calib").scales
    for name in pairs.pairs:
        assert np.float32(table[name]).tobytes() == np.float32(golden.scales[name]).tobytes()
    assert len(pairs.pairs) + len(made.inferred) == len(table)
    assert Path("resnet20.float.onnx").read_bytes() == original.read_bytes()
    x = RANDOM.normal(size=(4, 3, 32, 32)).astype(np.float32)
    np.testing.assert_array_equal(on_onnxruntime("resnet20.float.onnx", x), on_onnxruntime(original, x))
    assert made.coverage.extra == ()
    assert all("/b/b.0/" in name or name == "logits" for name in made.coverage.missing), "what an Add fuses away"


@pytest.mark.parametrize("text", ["", "[]", "5", '{"repairs": 5}', '{"fp16": "yes"}', "[" * 9999])
def test_a_damaged_record_of_the_quantization_is_a_note(text: str) -> None:
    assert "is unknown" in kept_changes_text({METADATA_KEY: text}, "m.onnx")
