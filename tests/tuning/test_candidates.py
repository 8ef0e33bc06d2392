"""The layers that tuning may keep in float."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import quantkit
from quantkit.data import DataOptions
from quantkit.graph import load_model
from quantkit.preprocess import Preprocess
from quantkit.tuning.candidates import CandidateFactory, TuningSource
from quantkit.tuning.trial import Recipe
from tests.support.qdq import model_of, noise

BRANCHES = (
    "(float[N, 4, 8, 8] x) => (float[N, 4, 8, 8] y) { [first] a = Conv(x, w) r = Relu(a) "
    "[pool] p = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(r) [join] c = Concat<axis = 1>(r, p) "
    "[last] y = Conv(c, d) }"
)


@pytest.mark.parametrize("version", ["8.6.1", "10.3.0"])
def test_what_only_moves_values_is_no_layer_to_keep(tmp_path: Path, version: str) -> None:
    """For TensorRT 8 the pool and the Concat read behind the pair of `r`; they stay float where it does."""
    model = model_of(BRANCHES, w=noise(4, 4, 1, 1), d=noise(4, 8, 1, 1))
    (tmp_path / "model.onnx").write_bytes(model.proto.SerializeToString())
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).normal(size=(8, 4, 8, 8)).astype(np.float32))
    found = quantkit.calibrate(
        tmp_path / "model.onnx", tmp_path / "data.npz", options=quantkit.CalibrateOptions(backend="onnxruntime")
    ).statistics
    assert found is not None
    options = quantkit.QuantizeOptions(tensorrt_version=version)
    source = TuningSource(
        load_model(tmp_path / "model.onnx"), found, tmp_path / "data.npz", Preprocess(), DataOptions(), options
    )
    factory, recipe = CandidateFactory(source), Recipe("wmse")
    assert [layer.node for layer in factory.layers(recipe)] == ["first", "last"]
    assert {layer.node for layer in factory.ranking(recipe, 1)[0]} == {"first", "last"}
