"""Conversion as far as it needs no framework: shapes, comparisons, and errors if a framework is missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from quantkit.cli import from_framework
from quantkit.errors import BackendError, ModelError, OutputError, UsageError
from quantkit.extras import install_command
from quantkit.frameworks.convert import from_tflite
from quantkit.frameworks.exported import DTYPES, Exported, Shape, draw_inputs, example_input, parse_input_shape
from quantkit.frameworks.layout import channels_first, channels_last, image_inputs
from quantkit.frameworks.output_check import check_outputs, largest_difference
from quantkit.graph import load_model

WEIGHT = np.array([[1.0, -2.0], [3.0, 0.5], [0.25, 4.0]], np.float32)


@given(
    st.text("abc:;.", min_size=1).filter(lambda t: "=" not in t),
    st.lists(st.integers(1, 999), min_size=1, max_size=5),
    st.sampled_from(DTYPES),
)
def test_a_shape_is_read_as_it_is_written(name: str, sizes: list[int], dtype: str) -> None:
    assert parse_input_shape(f"{name}={','.join(map(str, sizes))}:{dtype}") == (name, Shape(tuple(sizes), dtype))


@pytest.mark.parametrize("text", ["", "x", "x=", "=1,2", "x=1,a", "x=0,3", "x=-1,3", "x=1,3:float8", "x=1,,3"])
def test_text_that_is_not_a_shape_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not NAME=SIZE"):
        parse_input_shape(text)


@given(st.sampled_from(DTYPES), st.integers(1, 5), st.integers(0, 3))
def test_drawn_inputs_have_the_examples_dtype_and_the_batch(dtype: str, batch: int, seed: int) -> None:
    example = {"x": example_input(Shape((1, 4), dtype)), "gain": np.float32(2)}
    made = draw_inputs(found(example=example), batch, np.random.default_rng(seed))
    assert made["x"].dtype == dtype
    assert made["x"].shape == (batch, 4)
    assert made["gain"] == np.float32(2)


def test_layouts_are_each_others_inverse() -> None:
    array = np.arange(2 * 4 * 5 * 3).reshape(2, 4, 5, 3)
    np.testing.assert_array_equal(channels_last(channels_first(array)), array)
    assert image_inputs({"a": array, "b": array.transpose(0, 3, 1, 2), "c": array[0]}) == ("a",)


def found(run: Any = None, example: Any = None, rounding: float = 0.0) -> Exported:
    given = example or {"x": np.zeros((1, 3), np.float32)}
    return Exported(Path("m.onnx"), "Framework 1", "its exporter", given, run, rounding=rounding)


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(WEIGHT, "w")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "linear.onnx"
    )
    return tmp_path / "linear.onnx"


def network(change: Callable[[Any], Any] = lambda y: y) -> Callable[[Any], Sequence[Any]]:
    return lambda batch: [change(batch["x"] @ WEIGHT)]


def test_equal_outputs_pass_in_two_batch_sizes(linear: Path) -> None:
    results = check_outputs(load_model(linear), found(network()), 1e-6)
    assert [(r.output, r.batch) for r in results] == [("y", 1), ("y", 3)]
    assert all(r.share <= 1e-6 and r.magnitude > 0 for r in results)


def test_a_difference_names_output_batch_and_size(linear: Path) -> None:
    def wrong(y: Any) -> Any:
        return y + (0.5 if len(y) == 3 else 0)

    with pytest.raises(ModelError, match=r"output y of the ONNX model differs from Framework 1's by 0.5 at batch 3"):
        check_outputs(load_model(linear), found(network(wrong)), 1e-3)
    assert check_outputs(load_model(linear), found(network(wrong), rounding=10.0), 1e-3)


@pytest.mark.parametrize("change", [lambda y: y * np.nan, lambda y: y + np.inf])
def test_nan_and_inf_on_one_side_are_a_difference(change: Any, linear: Path) -> None:
    with pytest.raises(ModelError, match="differs"):
        check_outputs(load_model(linear), found(network(change)), 1e9)


def test_another_shape_or_a_failure_names_the_batch(linear: Path) -> None:
    with pytest.raises(ModelError, match=r"output y has shape \[1, 2\] at batch 1, originally \[2, 1\]"):
        check_outputs(load_model(linear), found(network(lambda y: y.reshape(2, -1))), 1e-3)

    def fails(batch: Any) -> Any:
        raise RuntimeError("only 7 samples\nin all")

    with pytest.raises(ModelError, match="the original model does not run at batch 1: only 7 samples") as refused:
        check_outputs(load_model(linear), found(fails), 1e-3)
    assert "--fixed-batch" in refused.value.remedy

    def silent(batch: Any) -> Any:
        raise ValueError

    with pytest.raises(ModelError, match="does not run at batch 1: ValueError"):
        check_outputs(load_model(linear), found(silent), 1e-3)
    assert check_outputs(load_model(linear), found(None), 1e-3) == ()


@given(st.lists(st.floats(width=32), min_size=1), st.lists(st.floats(width=32), min_size=1))
def test_the_largest_difference_is_no_less_than_any(a: list[float], b: list[float]) -> None:
    count = min(len(a), len(b))
    want, have = np.array(a[:count], np.float32), np.array(b[:count], np.float32)
    largest = largest_difference(want, have)
    for x, y in zip(want.astype(np.float64), have.astype(np.float64), strict=True):
        same = x == y or (np.isnan(x) and np.isnan(y))
        assert same or largest >= abs(x - y) or largest == np.inf
    assert largest_difference(want, want) == 0


@pytest.mark.parametrize(
    ("command", "source", "library", "extra"),
    [
        (from_framework.from_torch, "nets:net", "torch", "torch"),
        (from_framework.from_tf, "saved", "tensorflow", "tensorflow"),
        (from_framework.from_tf, "saved", "tf2onnx", "tensorflow"),
        (from_framework.from_tflite, "x.tflite", "tensorflow", "tensorflow"),
    ],
)
def test_a_missing_framework_is_reported_with_the_line_that_installs_it(
    command: Any, source: str, library: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == library else specs("json"))
    done = CliRunner().invoke(command, [source, "-o", str(tmp_path / "m.onnx")])
    assert isinstance(done.exception, BackendError)
    assert install_command(extra) in done.exception.remedy
    assert not list(tmp_path.iterdir())


def test_the_output_is_checked_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        from_tflite(tmp_path / "none.tflite", tmp_path / "no folder" / "m.onnx")
