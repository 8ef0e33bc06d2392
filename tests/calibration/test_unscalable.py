"""NaN, Inf and masks matter only where INT8 needs the scale."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import quantkit
from quantkit.calibration.options import CalibrateOptions
from quantkit.calibration.tables import find_suspicious_ranges
from quantkit.cli import invoke
from quantkit.errors import DataError
from quantkit.histogram import Histogram, HistogramMode
from quantkit.statistics import merge_statistics, read_statistics, statistics_bytes

ROWS, WIDTH = 5, 8
RANDOM = np.random.default_rng(1)
WEIGHTS = {name: (RANDOM.normal(size=(WIDTH, WIDTH)) / 3).astype(np.float32) for name in ("wq", "wv", "wo")}
SEEN = np.tril(np.ones((ROWS, ROWS), bool))
SAMPLES = RANDOM.normal(size=(12, ROWS, WIDTH)).astype(np.float32)
SAMPLES_STREAM = [SAMPLES[:6], SAMPLES[6:]]


def save(path: Path, nodes: Sequence[onnx.NodeProto], inputs: Sequence[Any], weights: dict[str, Any]) -> Path:
    graph = helper.make_graph(
        list(nodes),
        "net",
        list(inputs),
        [helper.make_tensor_value_info("y", inputs[0].type.tensor_type.elem_type, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=opsets, ir_version=8)), path)
    return path


def attention(path: Path, low: float, kind: type = np.float32) -> Path:
    """Attention over five rows, which see only earlier rows: the others get `low`."""
    code = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    nodes = [
        helper.make_node("MatMul", ["x", "wq"], ["q"]),
        helper.make_node("Transpose", ["q"], ["k"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "k"], ["scores"]),
        helper.make_node("Where", ["seen", "scores", "low"], ["masked"]),
        helper.make_node("Softmax", ["masked"], ["shares"]),
        helper.make_node("MatMul", ["x", "wv"], ["v"]),
        helper.make_node("MatMul", ["shares", "v"], ["mixed"]),
        helper.make_node("MatMul", ["mixed", "wo"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", code, ["N", ROWS, WIDTH])]
    weights = {name: value.astype(kind) for name, value in WEIGHTS.items()}
    return save(path, nodes, inputs, {**weights, "seen": SEEN, "low": np.array(low, kind)})


@pytest.mark.parametrize("low", [-np.inf, -3.4028235e38, -1e9, -1e4])
def test_masked_scores_get_no_scale_and_all_others_the_same(low: float, tmp_path: Path) -> None:
    made = quantkit.calibrate(attention(tmp_path / "m.onnx", low), SAMPLES_STREAM, output=tmp_path / "m.calib")
    plain = quantkit.calibrate(attention(tmp_path / "plain.onnx", -50.0), SAMPLES_STREAM)
    expected = {name: scale for name, scale in plain.table.scales.items() if name != "masked"}
    assert dict(made.table.scales) == expected
    assert made.missing == ("masked",)
    (note,) = [text for text in made.notes if "no scale" in text]
    assert note.startswith("1 tensor holds NaN, Inf or mask values")
    assert note.endswith(": masked")
    known = read_statistics(tmp_path / "m.stats.safetensors")
    assert known.unscalable == ("masked",)
    assert len(quantkit.quantize(tmp_path / "m.onnx", statistics=known).weights) == 3
    assert len(quantkit.quantize(tmp_path / "m.onnx", table=tmp_path / "m.calib").weights) == 3


def test_the_least_float16_is_a_mask_too(tmp_path: Path) -> None:
    halves = [SAMPLES.astype(np.float16)]
    made = quantkit.calibrate(attention(tmp_path / "m.onnx", -65504.0, np.float16), halves)
    assert made.missing == ("masked",)


def test_ordinary_numbers_keep_their_scale(tmp_path: Path) -> None:
    made = quantkit.calibrate(attention(tmp_path / "m.onnx", -100.0), SAMPLES_STREAM)
    assert "masked" in made.table.scales
    assert made.statistics is not None
    assert made.statistics.unscalable == ()


def test_a_mask_that_comes_in_as_an_input(tmp_path: Path) -> None:
    path, model = tmp_path / "m.onnx", onnx.load(attention(tmp_path / "m.onnx", -np.inf))
    (node,) = [node for node in model.graph.node if node.op_type == "Where"]
    node.CopyFrom(helper.make_node("Add", ["scores", "mask"], ["masked"]))
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["N", ROWS, ROWS]))
    onnx.save(model, path)
    mask = np.repeat(np.where(SEEN, 0, -np.inf).astype(np.float32)[None], len(SAMPLES), axis=0)
    np.savez(tmp_path / "d.npz", x=SAMPLES, mask=mask)
    made = quantkit.calibrate(path, tmp_path / "d.npz")
    assert set(made.missing) == {"mask", "masked"}
    np.savez(tmp_path / "d.npz", x=SAMPLES, mask=np.where(SEEN, 0, np.nan) + np.zeros_like(mask))
    with pytest.raises(DataError, match=r"d\.npz\[0\], input 'mask' holds NaN"):
        quantkit.calibrate(path, tmp_path / "d.npz")


def overflow(path: Path) -> Path:
    """Exp(x) in front of a layer that is quantized."""
    nodes = [
        helper.make_node("MatMul", ["x", "wq"], ["q"], "first"),
        helper.make_node("Exp", ["q"], ["e"]),
        helper.make_node("MatMul", ["e", "wv"], ["h"], "second"),
        helper.make_node("Sigmoid", ["h"], ["s"]),
        helper.make_node("MatMul", ["s", "wo"], ["y"], "third"),
    ]
    return save(path, nodes, [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", WIDTH])], WEIGHTS)


def test_where_int8_needs_the_scale_the_error_names_tensor_sample_layer_and_a_remedy_that_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    overflow(Path("m.onnx"))
    samples = np.zeros((9, WIDTH), np.float32)
    samples[7] = 1e4
    np.save("x.npy", samples)
    assert invoke(["calibrate", "m.onnx", "--data", "x.npy"]) == 1
    said = capsys.readouterr().err
    assert "tensor 'e' holds NaN or Inf in x.npy[7], and INT8 of second needs its scale" in said
    remedy = re.findall(r"--exclude|'\w+'", said.splitlines()[1])
    for verb in ("calibrate", "quantize"):
        assert invoke([verb, "m.onnx", "--data", "x.npy", *(word.strip("'") for word in remedy), "--force"]) == 0
    assert "5 tensors hold NaN, Inf or mask values and get no scale" in capsys.readouterr().err
    assert onnx.load("m.int8.onnx").graph.node


def test_a_finite_number_that_is_none_is_named(tmp_path: Path) -> None:
    samples = np.zeros((3, WIDTH), np.float32)
    samples[1, 2] = -3e38
    with pytest.raises(DataError, match=r"'x' holds -3e\+38, as overflows and masks are, in .*sample 1, and INT8"):
        quantkit.calibrate(overflow(tmp_path / "m.onnx"), [samples])


def test_parts_with_and_without_a_scale_merge_to_the_statistics_of_the_whole(tmp_path: Path) -> None:
    path = attention(tmp_path / "m.onnx", -np.inf)
    model = onnx.load(path)
    model.graph.node[-1].CopyFrom(helper.make_node("Exp", ["mixed"], ["y"]))
    onnx.save(model, path)
    far = SAMPLES.copy()
    far[-1] *= 1e3
    options = CalibrateOptions(histogram=HistogramMode.INVARIANT)

    def statistics(batch: Any) -> Any:
        return quantkit.calibrate(path, [batch], options=options).statistics

    whole, parts = statistics(far), [statistics(far[:6]), statistics(far[6:])]
    assert ["y" in part.unscalable for part in parts] == [False, True]
    assert statistics_bytes(merge_statistics(parts)) == statistics_bytes(whole)


def test_a_range_below_every_float32_scale_is_said(tmp_path: Path) -> None:
    """The edge of the first bin of a range of 1e-43 is 0 in float32."""
    made = quantkit.calibrate(attention(tmp_path / "net.onnx", -1e4), SAMPLES_STREAM, backend="onnxruntime")
    assert made.statistics is not None
    counts = np.zeros(2048, np.int64)
    counts[0], counts[-1] = 10**6, 1
    tiny = Histogram(counts, 1e-43, 0.0, 1e-43)
    findings = find_suspicious_ranges(replace(made.statistics, histograms={"q": tiny}))
    assert [(found.tensor, "too small for a scale in float32" in found.text) for found in findings] == [("q", True)]
