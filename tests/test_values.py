"""Values of callers in Python: a wrong type is an error that names it, before any work."""

from __future__ import annotations

from typing import Any

import pytest

import quantkit
from quantkit.errors import UsageError


@pytest.mark.parametrize("verb", ["calibrate", "quantize", "evaluate", "layers", "bench", "build", "export_triton"])
def test_options_of_another_type(verb: str) -> None:
    more: dict[str, tuple[Any, ...]] = {"calibrate": ("x.npz",), "evaluate": ("x.npz",), "export_triton": ("repo",)}
    with pytest.raises(UsageError, match="options is of type str"):
        getattr(quantkit, verb)("m.onnx", *more.get(verb, ()), options="fast")


@pytest.mark.parametrize("rules", [3.5, None, [None], 5, [], ["mse"]])
def test_rules_of_another_type(rules: Any) -> None:
    with pytest.raises(UsageError, match="rule"):
        quantkit.calibrate("m.onnx", "x.npz", rules=rules)
