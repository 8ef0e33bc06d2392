"""A network is run once before it is written: it loads, runs, and computes about what it was made from computes."""

from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper, parser

from quantkit.backends import trial_run
from quantkit.backends.trial_run import Trial, made_up_batches, scale_ranges, try_alone
from quantkit.errors import ModelError
from quantkit.graph import Model
from quantkit.values import ModelInput


def network(body: str, interface: str = "(float[N, 4] x) => (float[N, 4] y)", **weights: Any) -> Model:
    """A network in ONNX's text form, named by what it computes."""
    proto = parser.parse_model(f'<ir_version: 8, opset_import: ["": 17, "my": 1]> net {interface} {{ {body} }}')
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(a, np.float32), n) for n, a in weights.items())
    return Model(Path(f"{body.split()[0]}.onnx"), proto, "")


def try_network(made: Model, plain: Model, feeds: Any) -> Trial:
    """The outcome for a network that is to be written."""
    return trial_run.try_network(Path("new.onnx"), made, plain, feeds)


PLAIN = network("y = Abs(x)")
X = {"x": np.array([[1, -2, 3, -4]], np.float32)}


def test_the_noise_of_the_worst_output_is_said() -> None:
    interface = "(float[N, 4] x) => (float[N, 4] y, float[N, 4] z)"
    plain, made = network("y = Abs(x) z = Abs(x)", interface), network("y = Add(x, c) z = Abs(x)", interface, c=1.0)
    found = try_network(made, plain, X)
    noise = np.square(np.abs(X["x"]) - (X["x"] + 1)).sum()
    assert found.output == "y"
    assert found.sqnr_db == pytest.approx(10 * np.log10(30 / noise))
    assert not found.made_up
    assert found.notes
    assert "far from" in found.notes[0], "it computes something else"


def test_an_exact_copy_has_no_notes() -> None:
    found = try_network(network("y = Abs(x)"), PLAIN, None)
    assert found.made_up
    assert found.sqnr_db == np.inf
    assert found.text == "loads and runs on made-up input: SQNR exact at output y"
    assert not found.notes


WRONG = {
    "does not load": "y = Abs<axis = 1>(x)",
    "does not run": "y = MatMul(x, x)",
    "has an operator that nobody knows": "y = my.Odd(x)",
}


@pytest.mark.parametrize("how", WRONG)
@pytest.mark.parametrize("feeds", [X, None], ids=["data", "made up"])
def test_a_network_that_only_its_source_runs_is_refused(how: str, feeds: Any) -> None:
    with pytest.raises(ModelError, match=r"new\.onnx: the network that would be written does not run"):
        try_network(network(WRONG[how]), PLAIN, feeds)


def test_a_network_that_gives_nan_is_refused() -> None:
    with pytest.raises(ModelError, match="gives NaN or Inf at output 'y'"):
        try_network(network("y = Sqrt(x)"), PLAIN, X)


def test_nan_of_both_is_no_fault() -> None:
    assert try_network(network("y = Sqrt(x)"), network("y = Sqrt(x)"), X).sqnr_db == np.inf


def test_where_the_source_does_not_run_either_it_is_said() -> None:
    found = try_network(network("y = my.Odd(x)"), network("y = my.Odd(x)"), X)
    assert "onnxruntime does not run the network that it was made from" in found.untried
    assert "Odd" in found.untried
    assert found.notes


def test_networks_that_only_files_hold_are_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    large = network("y = MatMul(x, w)", w=np.eye(4))
    monkeypatch.setattr(trial_run, "ONE_FILE", 60)
    assert "2 GB" in try_network(large, large, X).untried


def test_outputs_without_floats_are_not_compared() -> None:
    made = network("y = ArgMax(x)", "(float[N, 4] x) => (int64[A, B] y)")
    found = try_network(made, made, X)
    assert isnan(found.sqnr_db)
    assert found.text == "loads and runs on one batch of the data"


def test_outputs_that_are_no_tensors_are_not_compared() -> None:
    made = network("y = SplitToSequence(x) z = Abs(x)", "(float[N, 4] x) => (seq(float[A, B]) y, float[N, 4] z)")
    assert try_network(made, made, X).output == "z"


def test_outputs_without_a_finite_value_are_not_compared() -> None:
    made = network("i = Reciprocal(z) y = Mul(x, i)", z=[0, 0, 0, 0])
    assert isnan(try_network(made, made, {"x": np.ones((1, 4), np.float32)}).sqnr_db)


def test_sizes_are_made_up_until_the_source_runs() -> None:
    interface = "(float[N, 3, H, W] x) => (float[A, B] y)"
    made = network("z = ReduceMean<axes = [1]>(x) f = Reshape(z, s) y = Relu(f)", interface, s=0)
    made.proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array([1, 64 * 64]), "s"))
    found = try_network(made, made, None)
    assert found.made_up
    assert found.output == "y"


def test_made_up_input_is_in_the_known_ranges_and_repeats_itself() -> None:
    inputs = (
        ModelInput("x", "float32", ("N", 3, None)),
        ModelInput("h", "float16", (2,)),
        ModelInput("i", "int64", ("N",)),
        ModelInput("b", "bool", ()),
    )
    first, *others = made_up_batches(inputs, scale_ranges({"x": 2.0, "h": 0.5}))
    again = next(made_up_batches(inputs, scale_ranges({"x": 2.0, "h": 0.5})))
    assert others
    assert {name: (a.dtype.name, a.shape) for name, a in first.items()} == {
        "x": ("float32", (1, 3, 32)), "h": ("float16", (2,)), "i": ("int64", (1,)), "b": ("bool", ()),
    }  # fmt: skip
    assert np.abs(first["x"]).max() <= 254
    assert first["x"].min() < 0
    assert not first["i"].any()
    for name, values in first.items():
        np.testing.assert_array_equal(values, again[name])


def test_alone_it_has_to_run_where_its_operators_are_known() -> None:
    assert try_alone(PLAIN) == Trial(made_up=True)
    assert "my" in try_alone(network("y = my.Odd(x)")).untried
    with pytest.raises(ModelError, match="does not run"):
        try_alone(network(WRONG["does not load"]))


def test_made_up_input_shows_a_network_that_computes_something_else() -> None:
    found = try_network(network("y = Neg(x)"), PLAIN, None)
    assert found.made_up
    assert "far from" in found.notes[0]
    assert "evaluate it on data" in found.notes[0]
