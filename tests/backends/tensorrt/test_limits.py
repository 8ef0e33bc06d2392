"""What cannot be built is refused before anything is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from quantkit.backends.tensorrt.limits import NetworkTraits, refuse_impossible
from quantkit.backends.tensorrt.options import BuildOptions, Precision
from quantkit.backends.tensorrt.versions import Features
from quantkit.errors import BackendError, QuantkitError, UsageError

FLOAT = NetworkTraits(explicit=False, half=False, has_table=False)
HALF = NetworkTraits(explicit=False, half=True, has_table=False)
SCALED = NetworkTraits(explicit=False, half=False, has_table=True)
QDQ = NetworkTraits(explicit=True, half=False, has_table=False)
WEAK = Features(version="10.3.0", precision_flags=True, strong_types=True, progress=True)
STRONG = Features(version="11.0.0", precision_flags=False, strong_types=True, progress=True)
GPU: dict[str, Any] = {"name": "GPU", "has_int8": True, "has_tf32": True}


def refuse(precision: str, network: NetworkTraits, found: Features = WEAK, *, typed: bool = False, **gpu: bool) -> None:
    device: Any = SimpleNamespace(**{**GPU, **gpu})
    refuse_impossible(BuildOptions(Precision.named(precision), strongly_typed=typed), found, device, network)


@pytest.mark.parametrize(
    ("precision", "network"),
    [
        ("fp32", FLOAT),
        ("tf32", FLOAT),
        ("fp16", HALF),
        ("best", HALF),
        ("int8", SCALED),
        ("best", SCALED),
        ("int8", QDQ),
    ],
)
def test_what_can_be_built_strongly_typed(precision: str, network: NetworkTraits) -> None:
    refuse(precision, network)
    refuse(precision, network, typed=True)
    refuse(precision, network, STRONG)


@pytest.mark.parametrize("precision", ["fp16", "best"])
def test_precisions_that_a_float_network_does_not_have(precision: str) -> None:
    refuse(precision, FLOAT)
    with pytest.raises(BackendError, match=f"with strongly_typed=True, .*: {precision} would have no effect") as caught:
        refuse(precision, FLOAT, typed=True)
    assert "float16" in caught.value.remedy
    with pytest.raises(BackendError, match=r"with TensorRT 11\.0\.0, the network alone defines the precisions"):
        refuse(precision, FLOAT, STRONG)


@pytest.mark.parametrize(
    ("precision", "network", "gpu", "error", "problem"),
    [
        ("int8", SCALED, {"has_int8": False}, BackendError, "GPU has no fast INT8"),
        ("tf32", FLOAT, {"has_tf32": False}, BackendError, "GPU has no TF32"),
        (
            "int8",
            NetworkTraits(explicit=True, half=False, has_table=True),
            {},
            UsageError,
            "a table cannot be used with it",
        ),
        ("fp16", QDQ, {}, UsageError, "the network has Q/DQ, but the precision is fp16"),
        ("int8", FLOAT, {}, UsageError, "INT8 needs scales"),
        ("int8", HALF, {}, UsageError, "INT8 needs scales"),
    ],
)
def test_what_is_refused_of_every_version(
    precision: str, network: NetworkTraits, gpu: dict[str, bool], error: type[QuantkitError], problem: str
) -> None:
    for found in (WEAK, STRONG):
        with pytest.raises(error, match=problem):
            refuse(precision, network, found, **gpu)
