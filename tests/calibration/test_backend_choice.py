"""Which backend calibrates, and what is said about it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from quantkit.calibration import backend_choice as choosing
from quantkit.calibration.backend_choice import choose_backend, unsupported_by_calibrators
from quantkit.calibration.options import CalibrateOptions
from quantkit.errors import BackendError, UsageError
from quantkit.histogram import HistogramMode
from quantkit.provenance import ModelRecord, Provenance, RunRecord, TableRecord, provenance_bytes, provenance_path
from quantkit.rules import DEFAULT_RULE, Rule, parse_rule, parse_rules
from quantkit.rules.entropy import Entropy
from quantkit.rules.minmax import MinMax
from quantkit.rules.mse import Mse
from quantkit.rules.percentile import Percentile
from quantkit.table import Algorithm

ENTROPY: tuple[Rule, ...] = (Entropy(),)
OUT = "nowhere.calib"
MISSING = BackendError("TensorRT is not installed", remedy="install it")


def machine(monkeypatch: pytest.MonkeyPatch, *, driver: bool = True, fault: BackendError | None = None) -> list[str]:
    """A machine with a driver or not, and with what TensorRT's calibrators need, or a fault; returns what was asked."""
    asked: list[str] = []

    def has_driver() -> bool:
        asked.append("driver")
        return driver

    def refuse() -> None:
        asked.append("TensorRT")
        if fault:
            raise fault

    monkeypatch.setattr(choosing, "has_driver", has_driver)
    monkeypatch.setattr(choosing, "refuse_without_calibrators", refuse)
    return asked


def options(**settings: Any) -> CalibrateOptions:
    return CalibrateOptions(**settings)


def test_whoever_asks_for_onnxruntime_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = machine(monkeypatch)
    assert choose_backend(options(backend="onnxruntime"), ENTROPY, OUT) == ("onnxruntime", ())
    assert asked == []


def test_without_a_driver_nothing_else_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = machine(monkeypatch, driver=False)
    assert choose_backend(options(), ENTROPY, OUT) == ("onnxruntime", ())
    assert asked == ["driver"]


def test_tensorrt_calibrates_where_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch)
    backend, (note,) = choose_backend(options(), ENTROPY, OUT)
    assert backend == "tensorrt"
    assert "--backend onnxruntime" in note
    assert choose_backend(options(backend="tensorrt"), ENTROPY, OUT) == ("tensorrt", ())


def test_where_nothing_is_written_statistics_are_what_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = machine(monkeypatch)
    assert choose_backend(options(), ENTROPY, None) == ("onnxruntime", ())
    assert choose_backend(options(backend="tensorrt"), ENTROPY, None) == ("tensorrt", ())
    assert asked == ["TensorRT"]


def test_where_tensorrt_is_missing_onnxruntime_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, fault=MISSING)
    assert choose_backend(options(), ENTROPY, OUT) == (
        "onnxruntime",
        ("onnxruntime calibrates: TensorRT is not installed",),
    )
    with pytest.raises(BackendError) as caught:
        choose_backend(options(backend="tensorrt"), ENTROPY, OUT)
    assert caught.value is MISSING


BEYOND: list[tuple[tuple[Rule, ...], dict[str, Any], str | None]] = [
    (ENTROPY, {}, None),
    ((MinMax(),), {}, None),
    (ENTROPY, {"algorithm": Algorithm.ENTROPY}, None),
    ((Percentile(99.9),), {"algorithm": Algorithm.LEGACY}, None),
    ((Percentile(99.9),), {}, "do not have the rule percentile:99.9 (EntropyCalibration2)"),
    ((Mse(),), {}, "do not have the rule mse (EntropyCalibration2)"),
    (ENTROPY, {"algorithm": Algorithm.MIN_MAX}, "do not have the rule entropy (MinMaxCalibration)"),
    ((Entropy(), MinMax()), {}, "make one table per run"),
    (ENTROPY, {"histogram": HistogramMode.INVARIANT}, "have histograms of their own"),
    (ENTROPY, {"resume": True}, "cannot resume"),
    (ENTROPY, {"learning_curve": True}, "record no learning curve"),
]


@pytest.mark.parametrize(("rules", "settings", "problem"), BEYOND)
def test_what_the_calibrators_cannot_do(
    monkeypatch: pytest.MonkeyPatch, rules: tuple[Rule, ...], settings: dict[str, Any], problem: str | None
) -> None:
    machine(monkeypatch)
    assert unsupported_by_calibrators(options(**settings), rules) == problem
    backend, notes = choose_backend(options(**settings), rules, OUT)
    if problem is None:
        assert backend == "tensorrt"
        return
    assert (backend, notes) == ("onnxruntime", (f"onnxruntime calibrates: TensorRT's calibrators {problem}",))
    with pytest.raises(UsageError, match="TensorRT's calibrators ") as caught:
        choose_backend(options(backend="tensorrt", **settings), rules, OUT)
    assert problem in caught.value.problem


@pytest.mark.parametrize(("rules", "settings", "problem"), [case for case in BEYOND if case[2]])
def test_the_remedy_of_a_refusal_works(
    monkeypatch: pytest.MonkeyPatch, rules: tuple[Rule, ...], settings: dict[str, Any], problem: str
) -> None:
    """It names a rule with which TensorRT calibrates the rest of the request, or else only onnxruntime."""
    machine(monkeypatch)
    with pytest.raises(UsageError) as caught:
        choose_backend(options(backend="tensorrt", **settings), rules, OUT)
    assert "--backend onnxruntime" in caught.value.remedy
    named = re.search(r"--rule (\S+)", caught.value.remedy)
    assert (named is not None) == ("do not have the rule" in problem)
    if named is not None:
        assert choose_backend(options(backend="tensorrt", **settings), (parse_rule(named[1]),), OUT)[0] == "tensorrt"


def test_the_default_rule_is_onnxruntimes_and_entropy_is_tensorrts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with TensorRT says so, and refuses the default rule where TensorRT is asked for."""
    machine(monkeypatch)
    backend, (note,) = choose_backend(options(), parse_rules(DEFAULT_RULE), OUT)
    assert backend == "onnxruntime"
    assert f"TensorRT's calibrators do not have the rule {DEFAULT_RULE}" in note
    with pytest.raises(UsageError, match=f"the rule {DEFAULT_RULE}") as caught:
        choose_backend(options(backend="tensorrt"), parse_rules(DEFAULT_RULE), OUT)
    assert caught.value.remedy.startswith('rule="entropy"') or "--rule entropy" in caught.value.remedy


def test_a_provider_that_is_asked_for_is_onnxruntimes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = machine(monkeypatch)
    assert choose_backend(options(provider="cuda"), ENTROPY, OUT) == ("onnxruntime", ())
    with pytest.raises(UsageError, match="TensorRT's calibrators do not take provider="):
        choose_backend(options(backend="tensorrt", provider="cuda"), ENTROPY, OUT)
    assert asked == []


@pytest.mark.parametrize(
    ("backend", "force", "chosen"),
    [
        ("onnxruntime 1.22.0 cpu", False, "onnxruntime"),
        ("onnxruntime 1.22.0 cpu", True, "tensorrt"),
        ("tensorrt 8.6.0 NVIDIA H200", False, "tensorrt"),
        (None, False, "tensorrt"),
    ],
)
def test_a_table_that_is_there_decides(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, backend: str | None, force: bool, chosen: str
) -> None:
    machine(monkeypatch)
    output = tmp_path / "m.calib"
    run = RunRecord(histogram=HistogramMode.TENSORRT, backend=backend, batches=1, slice=1) if backend else None
    table = TableRecord(file="m.calib", sha256="a", header="h", tensors=1)
    provenance = Provenance(quantkit="1", table=table, model=ModelRecord(file="m.onnx", sha256="b"), run=run)
    provenance_path(output).write_bytes(provenance_bytes(provenance))
    assert choose_backend(options(force=force), ENTROPY, output)[0] == chosen
    assert choose_backend(options(force=force), ENTROPY, tmp_path / "other.calib")[0] == "tensorrt"


def test_a_version_that_is_not_the_installed_one_is_onnxruntimes(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch)
    monkeypatch.setattr("quantkit.tensorrt_version.installed_number", lambda: 8600)
    assert choose_backend(options(tensorrt_version="10.3.0"), ENTROPY, OUT)[0] == "onnxruntime"
