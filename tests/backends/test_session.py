"""Backends by name, and the one function that opens a network on the default backend."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

import quantkit.backends
from quantkit.backends.session import (
    backend_label,
    backend_named,
    backend_names,
    check_provider,
    default_backend,
    open_session,
    session_backends,
)
from quantkit.calibration.calibrate import calibrate
from quantkit.calibration.options import CalibrateOptions
from quantkit.errors import UsageError
from quantkit.graph import Model, load_model
from quantkit.inspection.machine import Ability, doctor

TRIAL = """
from dataclasses import dataclass

from onnx.reference import ReferenceEvaluator

from quantkit.backends.session import FakeSession


@dataclass(frozen=True)
class Trial:
    name: str = "trial"
    providers: tuple = ("cpu",)

    def available(self):
        return self.providers

    def version(self):
        return "1.2"

    def open_session(self, model, tensors, **options):
        shown = [name for name in tensors if name in model.outputs]
        evaluator = ReferenceEvaluator(model.proto)
        return FakeSession(lambda feeds: dict(zip(shown, evaluator.run(shown, dict(feeds)))), shown)


BACKEND = Trial()
"""


@pytest.fixture
def model(tmp_path: Path) -> Model:
    text = (
        '<ir_version: 8, opset_import: ["": 17]> net (float[N, 3] x) => (float[N, 3] y, int64[N] best)'
        " { y = Relu (x) best = ArgMax <axis = 1, keepdims = 0> (y) }"
    )
    onnx.save(parser.parse_model(text), tmp_path / "m.onnx")
    return load_model(tmp_path / "m.onnx")


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One more folder among the backends."""
    (tmp_path / "trial").mkdir()
    (tmp_path / "trial/__init__.py").write_text(TRIAL)
    monkeypatch.setattr(quantkit.backends, "__path__", [*quantkit.backends.__path__, str(tmp_path)])
    session_backends.cache_clear()
    yield
    session_backends.cache_clear()
    sys.modules.pop("quantkit.backends.trial")


def test_the_backends_are_these() -> None:
    assert backend_names() == ("auto", "onnxruntime", "tensorrt")
    assert default_backend().name == "onnxruntime"
    assert "cpu" in default_backend().available()


def test_an_unknown_backend_or_provider_is_refused() -> None:
    with pytest.raises(UsageError, match=r"unknown backend 'x'(.|\n)*onnxruntime"):
        backend_named("x")
    with pytest.raises(UsageError, match=r"unknown provider 'rocm'(.|\n)*cpu, cuda"):
        check_provider("rocm")


@pytest.mark.usefixtures("trial")
def test_a_backend_is_one_folder(model: Model) -> None:
    assert backend_names() == ("auto", "onnxruntime", "trial", "tensorrt")
    assert backend_label(backend_named("trial"), "cpu") == "trial 1.2 cpu"
    data = [{"x": np.array([[1.0, -2.0, 0.5]], np.float32)}]
    found = calibrate(model.path, data, rules="minmax", options=CalibrateOptions(backend="trial"))
    assert found.table.amax("y") == pytest.approx(1.0)
    assert found.statistics is not None
    assert found.statistics.origin.backend == "trial 1.2 cpu"
    assert Ability("calibrate with --backend trial", True, "1.2") in doctor().abilities
    with pytest.raises(UsageError, match=r"unknown provider 'cuda'(.|\n)*cpu"):
        CalibrateOptions(backend="trial", provider="cuda")


def test_tensors_of_other_types_are_shown_on_request(model: Model) -> None:
    assert open_session(model, model.outputs).tensors == ("y",)
    session = open_session(model, model.outputs, any_type=True)
    assert session.tensors == ("y", "best")
    found = session.runner()({"x": np.array([[1.0, 3.0, 2.0]], np.float32)})
    assert found["best"].tolist() == [1]
