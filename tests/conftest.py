"""What the tests share: where trained models and TensorRT's tables lie, and how hypothesis runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")

os.environ.setdefault("QUANTKIT_BACKEND", "onnxruntime")  # for programs that tests start
SIBLING = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with `models`, `data` and `golden`, which is not part of the repository."""
    folder = Path(os.environ.get("QUANTKIT_SHARED", SIBLING))
    if not (folder / "models").is_dir():
        pytest.skip("no shared folder with models/: set QUANTKIT_SHARED")
    return folder


@pytest.fixture(autouse=True, scope="session")
def without_tensorrt() -> Iterator[None]:
    """`auto` means onnxruntime, on a machine with a GPU as well; tests of the choice choose for themselves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("quantkit.calibration.backend_choice.has_driver", lambda: False)
        yield


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--regen` rewrites pages that are made of code."""
    parser.addoption("--regen", action="store_true", help="rewrite generated pages instead of comparing them")
