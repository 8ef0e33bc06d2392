"""Tuning by time, and a build of its choice, as far as that goes without a GPU."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import checked
import pytest
from checked import HAS_CALIBRATORS

import quantkit
from quantkit.engines import round_times
from quantkit.engines.build import build
from quantkit.tuning.speed import lab, tune
from quantkit.tuning.speed.candidate import EngineKind, SpeedCandidate
from quantkit.tuning.speed.result import SpeedTuning
from quantkit.tuning.speed.tune import SpeedOptions, tune_speed

pytestmark = pytest.mark.usefixtures("folder")


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> SpeedTuning:
    """A tuning of the network with two convolutions."""
    monkeypatch.setattr(tune, "explain_no_gpu", lambda _: None)
    monkeypatch.setattr(lab, "SECONDS", 0.001)
    monkeypatch.setattr(round_times.measure_rounds, "__kwdefaults__",
                        round_times.measure_rounds.__kwdefaults__ | {"rounds": 3, "seconds": 0.001})  # fmt: skip
    options = quantkit.CalibrateOptions(backend="onnxruntime")
    made = quantkit.calibrate("two.onnx", "data.npy", rule="minmax", preprocess="raw", options=options)
    assert made.statistics is not None
    Path("out").mkdir()
    return tune_speed("two.onnx", statistics=made.statistics, folder="out", options=SpeedOptions(batches=(1, 4)))


def test_tuning_by_time(found: SpeedTuning, world: checked.World) -> None:
    by_name: dict[str, SpeedCandidate] = {c.name: c for c in found.candidates}
    assert list(by_name)[:2] == ["fp16", "default"]
    assert ("table" in by_name) == HAS_CALIBRATORS
    assert found.half == (not HAS_CALIBRATORS)
    timed = [c for c in found.candidates if c.times]
    assert all(set(c.times) == {1, 4} for c in timed)
    assert by_name["fp16"] in timed
    assert any(c.kind is EngineKind.QDQ for c in timed)
    flags = [build.flags for build in world.builds]
    assert flags[0] == ({"FP16", "TF32"} if HAS_CALIBRATORS else {"TF32"})
    assert found.machine.startswith("a GPU") or "TensorRT" in found.machine
    assert all(Path("out", c.engine.name).exists() for c in timed if c.engine)
    json.dumps(found.document(), allow_nan=False)


def test_its_choice_is_built(found: SpeedTuning) -> None:
    model = quantkit.graph.load_model("two.onnx")
    chosen = found.chosen.model
    assert chosen is not None
    precision = "int8" if found.chosen.kind.value == "qdq" else "tf32" if found.half else "fp16"
    deploy = {"precision": precision, "model": chosen.name, "table": None}
    digests = {chosen.name: sha256(Path("out", chosen.name).read_bytes()).hexdigest()}
    document = {"deploy": deploy, "digests": digests, "provenance": {"model": model.sha256}}
    Path("out/tune.json").write_text(json.dumps(document))
    made = build("two.onnx", tuned="out", output="tuned.engine", shapes="x=1:4:8")
    assert made.record.model.file == chosen.name
    assert made.record.precision == precision
