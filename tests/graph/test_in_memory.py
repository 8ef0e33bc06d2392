"""Models in memory: an `onnx.ModelProto` is what its file would be, and is not changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import external_data_helper

import quantkit
from quantkit.errors import ModelError, UsageError
from quantkit.graph import load_model

DATA = Path(__file__).parents[2] / "calibration_data"
PATH, IMAGES, SPEC = DATA / "model.onnx", DATA / "images", DATA / "preprocess.toml"


@pytest.fixture(scope="module")
def held() -> onnx.ModelProto:
    return onnx.load(PATH)


@pytest.fixture(scope="module")
def statistics() -> quantkit.Statistics:
    found = quantkit.calibrate(PATH, IMAGES, limit=32).statistics
    assert found is not None
    return found


def test_identity_and_content_are_those_of_the_file(held: onnx.ModelProto) -> None:
    before = held.SerializeToString()
    model, file = load_model(held), load_model(PATH)
    assert (model.sha256, model.proto, model.inputs) == (file.sha256, file.proto, file.inputs)
    assert model.files == ()
    assert load_model(model) is model
    model.proto.graph.node[0].name = "changed"
    assert held.SerializeToString() == before


def test_every_verb_takes_it(held: onnx.ModelProto, statistics: quantkit.Statistics, tmp_path: Path) -> None:
    made = quantkit.calibrate(held, IMAGES, preprocess=SPEC, limit=32, output=tmp_path)
    assert made.statistics is not None
    assert made.statistics.origin.model == statistics.origin.model
    assert [path.name for path in made.files] == ["model.stats.safetensors", "model.calib", "model.calib.json"]
    assert quantkit.calibrate(held, IMAGES, preprocess=SPEC, limit=32, output=tmp_path).reused
    options: dict[str, Any] = {"statistics": statistics, "repairs": ()}
    network = quantkit.quantize(held, tmp_path / "q.onnx", **options)
    assert quantkit.quantize(held, **options).proto == quantkit.quantize(PATH, **options).proto
    repaired = quantkit.quantize(held, data=IMAGES, preprocess=SPEC, limit=16)
    assert repaired.repairs
    found = quantkit.evaluate([held, network.proto], DATA / "test", preprocess=SPEC, limit=20)
    assert [model.name for model in found.models] == ["model 1", "model 2"]
    assert found.models[0].sha256 == load_model(PATH).sha256
    assert quantkit.evaluate(held, DATA / "test", preprocess=SPEC, limit=20).reference.bytes == held.ByteSize()
    assert quantkit.inspect(held).sha256 == statistics.origin.model
    assert quantkit.lint(network.proto).findings == quantkit.lint(tmp_path / "q.onnx").findings
    ranked = quantkit.layers(held, against=network.proto, data=IMAGES, preprocess=SPEC, limit=4)
    assert ranked.layers
    assert quantkit.from_qdq(network.proto, tmp_path / "back.calib").scales
    assert quantkit.adopt(tmp_path / "back.calib", held, min_coverage=0.5, force=True).coverage.matched


def test_the_spec_of_the_working_directory_is_not_its(held: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(DATA)
    assert quantkit.calibrate(held, IMAGES, limit=4).preprocess.source == "default"


REFUSED: dict[str, tuple[Callable[[Any], object], str]] = {
    "build": (lambda model: quantkit.build(model), "there is no folder beside a model in memory"),
    "calibrate": (lambda model: quantkit.calibrate(model, IMAGES), r"already has Q/DQ\n.*quantkit\.from_qdq\(model"),
    "quantize": (lambda model: quantkit.quantize(model), "already has Q/DQ"),
    "bench": (lambda model: quantkit.bench([model]), "is of type ModelProto, not a path"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_needs_a_file_or_a_float_network_says_so(
    name: str, held: onnx.ModelProto, statistics: quantkit.Statistics
) -> None:
    verb, problem = REFUSED[name]
    with pytest.raises(quantkit.QuantkitError, match=problem):
        verb(quantkit.quantize(held, statistics=statistics, repairs=()).proto)


def test_weights_in_files_have_no_folder(held: onnx.ModelProto) -> None:
    away = onnx.ModelProto()
    away.CopyFrom(held)
    for tensor in away.graph.initializer:
        external_data_helper.set_external_data(tensor, "weights.bin")
        tensor.data_location = onnx.TensorProto.EXTERNAL
    with pytest.raises(ModelError, match=r"in memory has weights in files: weights\.bin\n.*load_external_data"):
        load_model(away)
    with pytest.raises(ModelError, match=r"\(in memory\)/model\.onnx is not an ONNX model"):
        load_model(onnx.ModelProto())
    for wrong in (3, np.zeros(3), None):
        with pytest.raises(UsageError, match="the model is of type"):
            load_model(wrong)
