"""What the tests share: where trained models and TensorRT's tables lie, and how hypothesis runs."""

from __future__ import annotations

import os
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")

os.environ.setdefault("QUANTKIT_BACKEND", "onnxruntime")  # for programs that tests start
if "QUANTKIT_TEST_ORT" in os.environ:
    KERNELS = Path(__file__).parent / "kernels"
    runpy.run_path(str(KERNELS / "sitecustomize.py"))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(KERNELS), *filter(None, [os.environ.get("PYTHONPATH")])])
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
        patch.setattr("quantkit.pipeline.choosing.has_driver", lambda: False)
        yield


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--regen` rewrites pages that are made of code."""
    parser.addoption("--regen", action="store_true", help="rewrite generated pages instead of comparing them")
