"""`quantkit lint` on files that onnxruntime wrote: what is found, what is fixed, what is printed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper, parser
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

import quantkit
from quantkit.cli import invoke as run
from quantkit.errors import ModelError, OutputError, StaleError, UsageError
from quantkit.graph import load_model
from quantkit.linting.registry import lint_model
from quantkit.qdq.insert import insert_qdq
from tests.support.networks import BUNDLED

NODES = """<ir_version: 8, opset_import: ["": 17]> net (float[N, 3, 8, 8] x) => (float[N, 5] y) {
    a = Conv(x, w, b) r = Relu(a) c = Conv<pads = [1, 1, 1, 1]>(r, v, d) s = Add(c, r) t = Relu(s)
    m = MaxPool<kernel_shape = [2, 2]>(t) g = GlobalAveragePool(m) f = Flatten(g) y = Gemm<transB = 1>(f, u, e) }"""
SHAPES = {"w": (4, 3, 3, 3), "b": (4,), "v": (4, 4, 3, 3), "d": (4,), "u": (5, 4), "e": (5,)}
SYMMETRIC = {"ActivationSymmetric": True, "WeightSymmetric": True}


class Batches(CalibrationDataReader):  # type: ignore[misc]
    """Three random batches."""

    def __init__(self) -> None:
        random = np.random.default_rng(5)
        self.batches: Iterator[Any] = iter([{"x": random.normal(size=(2, 3, 8, 8)).astype("f")} for _ in range(3)])

    def get_next(self) -> Any:
        return next(self.batches, None)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What onnxruntime writes with its defaults, symmetrically, in uint8, and in its operator format."""
    folder = tmp_path_factory.mktemp("onnxruntime")
    random = np.random.default_rng(1)
    proto = parser.parse_model(NODES)
    proto.graph.initializer.extend(
        numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name) for name, shape in SHAPES.items()
    )
    onnx.save(proto, folder / "net.onnx")
    for name, (kind, weights, per_channel, extra) in {
        "defaults": (QuantType.QUInt8, QuantType.QInt8, False, {}),
        "symmetric": (QuantType.QInt8, QuantType.QInt8, True, SYMMETRIC),
        "unsigned": (QuantType.QUInt8, QuantType.QUInt8, False, SYMMETRIC),
        "operators": (QuantType.QInt8, QuantType.QInt8, False, SYMMETRIC),
    }.items():
        quantize_static(
            folder / "net.onnx",
            folder / f"{name}.onnx",
            Batches(),
            quant_format=QuantFormat.QOperator if name == "operators" else QuantFormat.QDQ,
            activation_type=kind,
            weight_type=weights,
            per_channel=per_channel,
            extra_options=extra,
        )
    return folder


def computed(path: Path, name: str = "x", shape: tuple[int, ...] = (4, 3, 8, 8)) -> np.ndarray[Any, Any]:
    """What onnxruntime computes, node by node."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    x = np.random.default_rng(9).normal(size=shape).astype(np.float32)
    (y,) = session.run(None, {name: x})
    return np.asarray(y)


def rules(report: quantkit.LintReport) -> set[str]:
    return {found.rule for found in report.findings}


def test_what_onnxruntime_writes_by_default(files: Path) -> None:
    report = quantkit.lint(files / "defaults.onnx")
    assert {"int32-bias", "uint8", "zero-point"} <= rules(report)
    assert [f.rule for f in report.findings if f.fixable] == ["int32-bias"] * 3


@pytest.mark.parametrize(("name", "fixed"), [("symmetric", {"int32-bias"}), ("unsigned", {"int32-bias", "uint8"})])
def test_symmetric_files_are_fixed_and_compute_the_same(
    files: Path, tmp_path: Path, name: str, fixed: set[str]
) -> None:
    report = quantkit.lint(files / f"{name}.onnx", fix_to=tmp_path / "fixed.onnx")
    assert {found.rule for found in report.fixed} == fixed
    assert report.errors == ()
    assert rules(report) == {"blocked-fusion", "residual-pairs"}
    assert quantkit.lint(tmp_path / "fixed.onnx").findings == report.findings
    onnx.checker.check_model(str(tmp_path / "fixed.onnx"), full_check=True)
    np.testing.assert_array_equal(computed(tmp_path / "fixed.onnx"), computed(files / f"{name}.onnx"))
    types = {t.data_type for t in onnx.load(tmp_path / "fixed.onnx").graph.initializer}
    assert types == {onnx.TensorProto.FLOAT, onnx.TensorProto.INT8}


def test_the_operator_format_is_reported_once_per_operator(files: Path) -> None:
    report = quantkit.lint(files / "operators.onnx")
    assert rules(report) == {"integer-operator"}
    nodes = onnx.load(files / "operators.onnx").graph.node
    assert len(report.findings) == sum(node.op_type.startswith(("QLinear", "QGemm")) for node in nodes) > 0


def test_our_own_pairs_on_the_bundled_network() -> None:
    model = load_model(BUNDLED / "model.onnx")
    scales = {name: 0.1 for node in model.proto.graph.node for name in (*node.input, *node.output)}
    made = insert_qdq(model, scales)
    assert lint_model(type(model)(model.path, made.proto, "")) == ()


def test_a_float_model_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no QuantizeLinear and no DequantizeLinear") as caught:
        quantkit.lint(BUNDLED / "model.onnx", fix_to=tmp_path / "fixed.onnx")
    assert "quantkit calibrate" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_a_float_network_is_cleaned_for_trtexec(tmp_path: Path) -> None:
    """As torch writes a layer that is used twice: an Identity before the weight and the bias of the second."""
    proto = onnx.load(BUNDLED / "model.onnx")
    first = next(node for node in proto.graph.node if node.op_type == "Conv")
    passed = [f"{name}_again" for name in first.input[1:]]
    for name, again in zip(first.input[1:], passed, strict=True):
        proto.graph.node.insert(0, onnx.helper.make_node("Identity", [name], [again], name=f"to {again}"))
    first.input[1:] = passed
    onnx.save(proto, tmp_path / "net.onnx")
    report = quantkit.lint(tmp_path / "net.onnx", fix_to=tmp_path / "clean.onnx")
    assert {finding.rule for finding in report.fixed} == {"weight-behind-node"}
    assert report.findings == ()
    assert all(node.op_type != "Identity" for node in onnx.load(tmp_path / "clean.onnx").graph.node)
    clean, before = (
        computed(path, "image", (4, 1, 16, 16)) for path in (tmp_path / "clean.onnx", BUNDLED / "model.onnx")
    )
    np.testing.assert_array_equal(clean, before)


def test_nothing_is_replaced_unasked(files: Path, tmp_path: Path) -> None:
    target = tmp_path / "fixed.onnx"
    target.write_bytes(b"mine")
    with pytest.raises(StaleError, match="already exists"):
        quantkit.lint(files / "symmetric.onnx", fix_to=target)
    assert target.read_bytes() == b"mine"
    report = quantkit.lint(files / "symmetric.onnx", fix_to=target, force=True)
    first = target.read_bytes()
    assert report.written == target
    quantkit.lint(files / "symmetric.onnx", fix_to=target, force=True)
    assert target.read_bytes() == first, "the same input, the same bytes"
    with pytest.raises(UsageError, match="would replace its own source"):
        quantkit.lint(target, fix_to=target, force=True)
    with pytest.raises(OutputError, match="cannot write"):
        quantkit.lint(target, fix_to=tmp_path / "nowhere" / "fixed.onnx")


def test_a_fixed_copy_contains_its_weights(files: Path, tmp_path: Path) -> None:
    apart = tmp_path / "apart"
    apart.mkdir()
    proto = onnx.load(files / "symmetric.onnx")
    onnx.save(proto, apart / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    quantkit.lint(apart / "net.onnx", fix_to=tmp_path / "fixed.onnx")
    (apart / "net.data").unlink()
    np.testing.assert_array_equal(computed(tmp_path / "fixed.onnx"), computed(files / "symmetric.onnx"))


# The command ------------------------------------------------------------------------------------------------------


def test_the_command_groups_by_severity(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["lint", str(files / "defaults.onnx")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("errors: ")
    assert any(line.startswith("slow: ") for line in lines)
    assert "  x_QuantizeLinear: uint8 with zero point " in "\n".join(lines)
    assert lines[-1].endswith("; --fix corrects 3")
    assert all(" → " in line for line in lines if line.startswith("  "))


def test_the_command_fixes(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.onnx").write_bytes((files / "symmetric.onnx").read_bytes())
    assert run(["lint", str(tmp_path / "net.onnx")]) == 1
    assert run(["lint", str(tmp_path / "net.onnx"), "--fix"]) == 0
    lines = capsys.readouterr().out.splitlines()
    tried = "tried  loads and runs on made-up input: SQNR exact at output y"
    assert lines[-4:] == ["fixed  3 int32-bias", tried, f"wrote  {tmp_path}/net.fixed.onnx", "2 slow"]
    assert run(["lint", str(tmp_path / "net.fixed.onnx")]) == 0


def test_nothing_is_written_where_nothing_can_be_fixed(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "fixed.onnx"
    assert run(["lint", str(files / "operators.onnx"), "--fix", "-o", str(target)]) == 1
    assert "no finding can be fixed exactly, and no copy was written" in capsys.readouterr().out
    report = quantkit.lint(files / "operators.onnx", fix_to=target)
    assert (report.written, report.fixed, target.exists()) == (None, (), False)


def test_the_command_as_json(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "fixed.onnx"
    assert run(["lint", str(files / "symmetric.onnx"), "--fix", "-o", str(target), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [found["rule"] for found in document["fixed"]] == ["int32-bias"] * 3
    assert {found["severity"] for found in document["findings"]} == {"slow"}
    assert (document["written"], document["summary"]) == (str(target), "2 slow")


def test_ten_lines_a_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = " ".join(
        f"q{i} = QuantizeLinear(t{i}, s, z) t{i + 1} = DequantizeLinear(q{i}, s, z)" for i in range(12)
    ).replace("(t0,", "(x,")
    proto = parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> n (float[3] x) => (float[3] y) {{ {pairs} y = Relu(t12) }}'
    )
    for name, value in (("s", np.float32(0.1)), ("z", np.int8(3))):
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    onnx.save(proto, tmp_path / "net.onnx")
    assert run(["lint", str(tmp_path / "net.onnx")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith("  q")]) == 10
    assert "  … 2 more of zero-point (--json lists all)" in lines
    assert lines[-1] == "12 errors"


def test_an_output_without_fix_is_a_mistake(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["lint", str(files / "symmetric.onnx"), "-o", "x.onnx"]) == 2
    assert "add --fix" in capsys.readouterr().err


def test_a_report_shows_itself(files: Path, tmp_path: Path) -> None:
    report = quantkit.lint(files / "symmetric.onnx", fix_to=tmp_path / "fixed.onnx")
    shown = report._repr_html_()
    assert shown.startswith("<p>symmetric.onnx: 2 slow, 3 fixed</p><table>")
    assert shown.count("<tr>") == 3
