"""External weights that are exchanged while a verb runs: what was digested is what was used, or there is an error."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import quantkit
from quantkit import CalibrateOptions, DataOptions, HistogramMode
from quantkit.errors import ModelError
from quantkit.graph import load_model, refuse_changed_model, refuse_changed_weights

MODEL = "model.onnx"


def write_weights(seed: int) -> None:
    """Write the file of weights anew, with the same size and the same time of modification."""
    values = np.random.default_rng(seed).normal(size=(4, 1, 3, 3)).astype(np.float32)
    Path("staged").write_bytes(values.tobytes())
    os.utime("staged", (10**9, 10**9))
    os.replace("staged", "w.bin")


@pytest.fixture(autouse=True)
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network with weights in a file of their own, statistics of it, and data."""
    monkeypatch.chdir(tmp_path)
    write_weights(0)
    weight = TensorProto(name="w", data_type=1, dims=[4, 1, 3, 3], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="w.bin")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4),
        helper.make_node("GlobalAveragePool", ["c"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["y"]),
    ]
    head = numpy_helper.from_array(np.random.default_rng(1).normal(size=(4, 5)).astype(np.float32), "v")
    values = [helper.make_tensor_value_info("x", 1, ["N", 1, 8, 8]), helper.make_tensor_value_info("y", 1, ["N", 5])]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [weight, head])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), MODEL)
    rng = np.random.default_rng(2)
    np.savez("x.npz", x=rng.normal(size=(32, 1, 8, 8)).astype(np.float32), y=np.arange(32) % 5)
    return tmp_path / MODEL


class Exchange:
    """Progress and phase that exchange the weights as soon as the work has begun."""

    def __init__(self) -> None:
        self.done = False

    def start(self, *_: object) -> None:
        """Nothing."""

    def advance(self, _: int) -> None:
        """Exchange the weights once."""
        if not self.done:
            write_weights(9)
        self.done = True

    def stopped(self) -> bool:
        """Go on."""
        return False

    def close(self) -> None:
        """Nothing."""

    def phase(self, _: str) -> None:
        """A phase of the work begins."""
        self.advance(0)


def calibrate(exchange: Exchange) -> None:
    options = CalibrateOptions(data=DataOptions(batch_size=8))
    quantkit.calibrate(MODEL, "x.npz", output="out.calib", options=options, progress=exchange)


def calibrate_in_passes(exchange: Exchange) -> None:
    options = CalibrateOptions(data=DataOptions(batch_size=8), max_memory=1 << 12, histogram=HistogramMode.INVARIANT)
    quantkit.calibrate(MODEL, "x.npz", output="out.calib", options=options, progress=exchange)


def quantize(exchange: Exchange) -> None:
    quantkit.quantize(MODEL, data="x.npz", output="out.onnx", phase=exchange.phase)


def evaluate(exchange: Exchange) -> None:
    quantkit.evaluate([MODEL], "x.npz", progress=exchange)


def layers(exchange: Exchange) -> None:
    known = quantkit.calibrate(MODEL, "x.npz").statistics
    quantkit.layers(MODEL, statistics=known, data="x.npz", phase=exchange.phase)


def tune(exchange: Exchange) -> None:
    quantkit.tune(MODEL, "x.npz", max_drop=50.0, output="out", phase=exchange.phase)


@pytest.mark.parametrize("verb", [calibrate, calibrate_in_passes, quantize, evaluate, layers, tune])
def test_weights_that_are_exchanged_during_the_work_are_an_error(verb: Callable[[Exchange], None]) -> None:
    with pytest.raises(ModelError, match=r"model\.onnx changed during the run"):
        verb(Exchange())
    assert not [path for path in Path().iterdir() if path.name.startswith(("out", ".out"))]


def test_the_same_content_may_move(model: Path) -> None:
    loaded = load_model(model)
    content = Path("w.bin").read_bytes()
    Path("other").write_bytes(content)
    os.replace("other", "w.bin")
    refuse_changed_weights(loaded)
    refuse_changed_weights(replace(loaded, proto=onnx.ModelProto(), sha256=""))
    write_weights(1)
    for changed in (loaded, replace(loaded, proto=onnx.ModelProto(), sha256="")):
        with pytest.raises(ModelError, match="changed during the run"):
            refuse_changed_weights(changed)
    Path("w.bin").unlink()
    with pytest.raises(ModelError, match=r"w\.bin"):
        refuse_changed_weights(loaded)


def test_a_model_is_read_again_only_where_a_stamp_moved(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, content = load_model(model), model.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("quantkit.graph.load.read_proto", lambda _: pytest.fail("read again"))
        refuse_changed_model(loaded)
    Path("other").write_bytes(content)
    os.replace("other", model)
    refuse_changed_model(loaded)


@pytest.mark.parametrize("what", ["model", "weights"])
def test_another_content_of_the_same_size_and_time_is_an_error(what: str, model: Path) -> None:
    os.utime(model, (10**9, 10**9))
    loaded = load_model(model)
    if what == "weights":
        write_weights(1)
    else:
        content = model.read_bytes()
        model.write_bytes(content.replace(b"Flatten", b"Sigmoid"))
        assert model.stat().st_size == len(content)
        os.utime(model, (10**9, 10**9))
    with pytest.raises(ModelError, match="changed during the run"):
        refuse_changed_model(loaded)
