"""onnxruntime against an engine, with an engine that is none: what is built, what is compared, what is said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from quantkit.backends.session import open_session
from quantkit.errors import BackendError, ModelError
from quantkit.graph import Model, load_model
from quantkit.qdq.insert import insert_qdq
from quantkit.qdq.tensors_as_outputs import float_activations, with_shown_tensors
from quantkit.sensitivity.parity import parity
from quantkit.values import Array, Batch
from tests.support.qdq import model_of, noise

TEXT = """(float[N, 3, 8, 8] x) => (float[N, 5] y) {
    a = Conv(x, w) r = Relu(a) p = GlobalAveragePool(r) f = Flatten(p) y = Gemm(f, g)
}"""
DATA = [{"x": np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32)}]


def net() -> Model:
    return model_of(TEXT, w=noise(4, 3, 3, 3), g=noise(4, 5))


def quantized() -> Model:
    made = insert_qdq(net(), dict.fromkeys(("x", "a", "r", "p", "f"), 0.03))
    return Model(Path("net.onnx"), made.proto, "")


class FakeEngine:
    """onnxruntime in the place of TensorRT; doubles one tensor, if it shows it."""

    def __init__(self, path: Path, wrong: str) -> None:
        self._model, self._wrong = load_model(path), wrong

    def __enter__(self) -> FakeEngine:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, batches: Iterable[Batch]) -> Iterator[Mapping[str, Array]]:
        run = open_session(self._model, self._model.outputs).runner()
        for batch in batches:
            found = dict(run(batch))
            if self._wrong in found:
                found[self._wrong] = found[self._wrong] * 2
            yield found


@dataclass
class Built:
    path: Path


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Records how engines are built; `wrong` names a tensor that they compute wrongly, `fused` one that only an engine
    without other tensors does."""
    seen: dict[str, Any] = {"wrong": "", "fused": "", "options": []}

    def build(path: Path, *, options: Any, output: Path) -> Built:
        onnx.checker.check_model(onnx.load(path), full_check=True)
        seen["options"].append(options)
        return Built(path)

    monkeypatch.setattr("quantkit.engines.build.build", build)

    def load(path: Path, _: int) -> FakeEngine:
        fused = len(onnx.load(path).graph.output) == 1
        return FakeEngine(path, (fused and seen["fused"]) or seen["wrong"])

    monkeypatch.setattr("quantkit.backends.tensorrt.engine.Engine.load", load)
    return seen


def test_an_engine_that_computes_the_same(gpu: dict[str, Any]) -> None:
    found = parity(quantized(), DATA)
    assert [tensor.name for tensor in found.tensors] == ["a", "r", "p", "f", "y"]
    assert all(tensor.sqnr_db > 100 for tensor in found.tensors)
    assert found.parts == ""
    assert found.verdict.startswith("calibration error")
    assert found.notes == ()
    assert [output.name for output in found.outputs] == ["y"]
    shown, fused = gpu["options"]
    assert (shown.shapes, shown.fp16, shown.tf32) == (("x=4x3x8x8",), False, False)
    assert fused == shown


def test_the_first_tensor_where_they_diverge(gpu: dict[str, Any]) -> None:
    gpu["wrong"] = "p"
    found = parity(quantized(), DATA)
    assert found.parts == "p"
    assert found.verdict.startswith("kernel error: engine and onnxruntime diverge at p (0.0 dB)")


def test_an_error_that_appears_only_in_fusions(gpu: dict[str, Any]) -> None:
    gpu["fused"] = "y"
    found = parity(quantized(), DATA)
    assert found.parts == "y"
    assert found.verdict == (
        "kernel error: engine and onnxruntime diverge at y (0.0 dB) if tensors are fused, and agree if they are not"
    )
    assert found.tensors[-1].sqnr_db > 100


def test_batches_are_whole_where_the_network_is_fixed_to_some(gpu: dict[str, Any], tmp_path: Path) -> None:
    fixed = Model(Path("net.onnx"), onnx.ModelProto(), "")
    fixed.proto.CopyFrom(quantized().proto)
    for value in (*fixed.proto.graph.input, *fixed.proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 5
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(40, 3, 8, 8)).astype(np.float32))
    assert parity(fixed, tmp_path / "x.npy").parts == ""
    assert [options.shapes for options in gpu["options"]] == [(), ()]


def test_a_float_network_is_refused() -> None:
    with pytest.raises(ModelError, match="its engine would compute in float"):
        parity(net(), DATA)


def test_without_a_gpu_it_says_so() -> None:
    with pytest.raises(BackendError):
        parity(quantized(), DATA)


def test_shown_tensors_are_outputs_with_types() -> None:
    model = quantized()
    proto = with_shown_tensors(model, float_activations(model))
    assert [value.name for value in proto.graph.output] == ["y", "a", "r", "p", "f"]
    assert all(value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for value in proto.graph.output)
    assert [value.name for value in model.proto.graph.output] == ["y"]
