"""What doctor says about calibrating on a GPU without TensorRT."""

from __future__ import annotations

from typing import Any

import pytest

from quantkit.inspection import machine


@pytest.mark.parametrize(
    ("providers", "cupy", "driver", "able", "detail"),
    [
        (
            ("cpu",),
            False,
            True,
            False,
            "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install 'onnxruntime-gpu[cuda,cudnn]",
        ),
        (("cpu", "cuda"), False, True, False, "pip install 'cupy-cuda13x"),
        (("cpu", "cuda"), True, False, False, "no driver"),
        (("cpu", "cuda"), True, True, True, "onnxruntime-gpu, CuPy and a driver are available"),
    ],
)
def test_what_is_missing_for_a_gpu_is_named(
    monkeypatch: pytest.MonkeyPatch, providers: tuple[str, ...], cupy: bool, driver: bool, able: bool, detail: str
) -> None:
    class Library:
        name = "onnxruntime"

        def available(self) -> tuple[str, ...]:
            return providers

    library: Any = Library()
    monkeypatch.setattr(machine, "find_spec", lambda _: cupy or None)
    monkeypatch.setattr(machine, "has_driver", lambda: driver)
    found = machine.gpu_ability(library)
    assert found.able == able
    assert found.detail.startswith(detail)
