"""Every verb takes the fields of its options as keywords, and says which one was meant."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import quantkit
from quantkit import DataOptions
from quantkit.keywords.option_fields import INTERNAL, TWINS

DATA = Path(__file__).parents[2] / "calibration_data"
MODEL, IMAGES = DATA / "model.onnx", DATA / "images"
VERBS = {
    "bench": quantkit.BenchOptions,
    "build": quantkit.BuildOptions,
    "calibrate": quantkit.CalibrateOptions,
    "compile": quantkit.CompileOptions,
    "evaluate": quantkit.EvaluateOptions,
    "evaluate_shard": quantkit.EvaluateOptions,
    "export_triton": quantkit.TritonOptions,
    "from_tf": quantkit.TfOptions,
    "from_tflite": quantkit.TfliteOptions,
    "from_torch": quantkit.TorchOptions,
    "layers": quantkit.LayersOptions,
    "layers_shard": quantkit.LayersOptions,
    "network_map": quantkit.MapOptions,
    "profile": quantkit.ProfileOptions,
    "quantize": quantkit.QuantizeOptions,
    "tune": quantkit.TuneOptions,
}
each = pytest.mark.parametrize("name", VERBS)


def option_names(kind: Any) -> set[str]:
    """The keywords that an options value stands for."""
    own = {field.name for field in fields(kind)}
    inner = {field.name for field in fields(DataOptions)} - INTERNAL
    return (own - {"data"}) | inner if "data" in own else own


def declared(name: str) -> inspect.Signature:
    """The signature of a verb as type checkers read it."""
    return inspect.signature(inspect.unwrap(getattr(quantkit, name)))


def test_every_verb_with_options_is_in_this_list() -> None:
    found = {name for name in quantkit.__all__ if inspect.isroutine(getattr(quantkit, name))}
    assert {name for name in found if "options" in declared(name).parameters} == set(VERBS)


@each
def test_completions_show_every_option(name: str) -> None:
    verb = getattr(quantkit, name)
    shown = inspect.signature(verb).parameters
    assert option_names(VERBS[name]) <= shown.keys()
    assert not any(parameter.kind is parameter.VAR_KEYWORD for parameter in shown.values())


@each
def test_type_checkers_know_the_same_keywords(name: str) -> None:
    verb = inspect.unwrap(getattr(quantkit, name))
    text = declared(name).parameters["_"].annotation
    typed = verb.__globals__[text.removeprefix("Unpack[").removesuffix("]")]
    own = declared(name).parameters.keys()
    twins = {twin for twin in TWINS if twin in typed.__annotations__ and TWINS[twin] in {*typed.__annotations__, *own}}
    assert typed.__total__ is False
    assert set(typed.__annotations__) - twins == option_names(VERBS[name]) - own - twins


class ReceivedError(Exception):
    """Ends a verb where it begins."""


@each
def test_keywords_become_options(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    verb = inspect.unwrap(getattr(quantkit, name))
    received: list[Any] = []

    def stop(options: Any, kind: Any) -> Any:
        received.append(kind() if options is None else options)
        raise ReceivedError

    monkeypatch.setitem(verb.__globals__, "checked_options", stop)
    monkeypatch.setitem(verb.__globals__, "require_torch", lambda: None)
    required = [p.name for p in declared(name).parameters.values() if p.default is p.empty and p.name != "_"]
    arguments = {key: 1.0 if key == "max_drop" else str(MODEL.parent / "none") for key in required}
    chosen = {"device": 1} if "device" in option_names(VERBS[name]) else {"min_coverage": 0.5}
    chosen = chosen if chosen.keys() <= option_names(VERBS[name]) else {"tolerance": 0.5}
    chosen = {"seed": 7, "checkpoint_every": 3} if name == "calibrate" else chosen
    chosen = {"batch": 3} if name == "compile" else chosen
    chosen = {"fold": False} if name == "network_map" else chosen
    nested = {"limit": 3, "batch_size": 2} if "limit" in option_names(VERBS[name]) else {}
    with pytest.raises(ReceivedError):
        getattr(quantkit, name)(**arguments, **chosen, **nested)
    made = received[0]
    assert isinstance(made, VERBS[name])
    assert all(getattr(made if hasattr(made, key) else made.data, key) == value for key, value in chosen.items())
    assert all(getattr(made.data, key) == value for key, value in nested.items())


@each
def test_an_unknown_keyword_is_a_type_error_with_a_suggestion(name: str) -> None:
    with pytest.raises(
        TypeError, match=rf"{name}\(\) got an unexpected keyword argument 'optoins'; did you mean 'options'"
    ):
        getattr(quantkit, name)(optoins=None)


@pytest.mark.parametrize(("given", "meant"), [("overwrite", "force"), ("batch", "batch_size"), ("rul", "rule")])
def test_names_of_other_tools_are_known(given: str, meant: str) -> None:
    with pytest.raises(TypeError, match=f"did you mean '{meant}'"):
        quantkit.calibrate(MODEL, IMAGES, **{given: 1})  # type: ignore[call-overload]


def test_keywords_replace_fields_of_options() -> None:
    options = quantkit.CalibrateOptions(data=DataOptions(limit=50, batch_size=25), tensorrt_version="8.6.1")
    made = quantkit.calibrate(MODEL, IMAGES, rule="entropy,minmax", options=options, limit=10, exclude="Flatten")
    assert (made.samples, made.batches, made.target) == (10, 1, "8.6.1")
    assert list(made.tables) == ["entropy", "minmax"]
    named = quantkit.calibrate(MODEL, IMAGES, rules="minmax", limit=10, histogram="invariant")
    assert named.statistics is not None
    assert named.statistics.origin.histogram == quantkit.HistogramMode.INVARIANT
    with pytest.raises(TypeError, match="'rules' and 'rule' are the same argument"):
        quantkit.calibrate(MODEL, IMAGES, rule="minmax", rules="minmax")
    with pytest.raises(quantkit.QuantkitError, match="unknown histogram 'x'"):
        quantkit.calibrate(MODEL, IMAGES, histogram="x")


def test_the_first_guesses_of_a_newcomer_work(tmp_path: Path) -> None:
    statistics = quantkit.calibrate(MODEL, IMAGES, rule="entropy", limit=10, batch_size=8).statistics
    assert statistics is not None
    made = quantkit.quantize(MODEL, tmp_path / "x.onnx", statistics=statistics, rule="minmax", repairs=[])
    assert "minmax" in made.source
    found = quantkit.evaluate([MODEL, tmp_path / "x.onnx"], DATA / "test", limit=20, metric="top5")
    assert (found.samples, found.metric) == (20, "top5")
    assert quantkit.layers(MODEL, statistics=statistics, data=IMAGES, limit=4, rule="mse").samples == 4
    assert list(quantkit.tables_from(statistics, rule="mse")) == list(quantkit.tables_from(statistics, rules="mse"))
