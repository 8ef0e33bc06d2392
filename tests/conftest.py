"""Fixtures of all tests: trained models and TensorRT's tables, a small project folder, the command line."""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import os
import runpy
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

import quantkit
from tests.support.command_line import run_in, working_in
from tests.support.networks import BUNDLED, ROOT, Command

settings.register_profile("here", deadline=None, max_examples=50)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.register_profile("fast", deadline=None, max_examples=5)
settings.load_profile("ci" if os.environ.get("CI") else "here")

os.environ.setdefault("QUANTKIT_BACKEND", "onnxruntime")  # for programs that tests start
FOUND_FIRST = [ROOT]
"""Where programs that tests start find this quantkit, and the kernels that QUANTKIT_TEST_ORT names."""
if "QUANTKIT_TEST_ORT" in os.environ:
    FOUND_FIRST.insert(0, ROOT / "tests" / "kernels")
    runpy.run_path(str(FOUND_FIRST[0] / "sitecustomize.py"))
GIVEN = os.environ.get("PYTHONPATH", "").split(os.pathsep)
os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, [*map(str, FOUND_FIRST), *GIVEN])))
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
    """`auto` means onnxruntime, and the default version that of a machine without TensorRT, also where there are a GPU
    and TensorRT 8; tests of these choices choose for themselves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("quantkit.calibration.backend_choice.has_driver", lambda: False)
        patch.setattr("quantkit.tensorrt_version.bundled_libraries", list)
        patch.setattr("quantkit.tensorrt_version.SONAMES", ())
        yield


def copy_network(folder: Path) -> None:
    """Write the bundled network (`net/model.onnx`) and 60 of its images (`imgs/`) into a folder."""
    (folder / "net").mkdir()
    for name in ("model.onnx", "preprocess.toml"):
        shutil.copy(BUNDLED / name, folder / "net" / name)
    for digit in range(10):
        (folder / "imgs" / str(digit)).mkdir(parents=True)
        for image in sorted((BUNDLED / "images" / str(digit)).iterdir())[:6]:
            shutil.copy(image, folder / "imgs" / str(digit) / image.name)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the bundled network (`net/model.onnx`) and 60 of its images (`imgs/`)."""
    copy_network(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """What calibrating the network of `place` on its images writes: table, statistics and record."""
    folder = tmp_path_factory.mktemp("calibrated")
    copy_network(folder)
    with working_in(folder):
        written = quantkit.calibrate("net/model.onnx", "imgs", output="net/model.calib", backend="onnxruntime")
    return tuple(folder / path for path in written.files)


@pytest.fixture
def calibrated(place: Path, calibration: tuple[Path, ...]) -> Path:
    """The working directory `place`, with statistics and a table of the network beside it."""
    for path in calibration:
        shutil.copy(path, place / "net")
    return place


@pytest.fixture
def quantkit_command(tmp_path: Path) -> Command:
    """`quantkit …` in the working directory."""

    def run(*arguments: object, code: int | None = 0, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        line, printed, said = [*map(str, arguments)], io.StringIO(), io.StringIO()
        found = run_in(folder or tmp_path, line, printed, said)
        done = subprocess.CompletedProcess(line, found, printed.getvalue(), said.getvalue())
        assert code is None or found == code, done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def quantkit_json(quantkit_command: Command) -> Callable[..., Any]:
    """`quantkit … --json` as a document."""
    return lambda *arguments, **options: json.loads(quantkit_command(*arguments, "--json", **options).stdout)


WHOLE = {"docs", "bindings", "frameworks", "cli", "project", "tuning"}
"""Folders whose tests run whole commands, pages, or other people's libraries."""
LONGEST = (
    "test_who_reads_the_pages_in_order",
    "test_a_notebook_shows",
    "test_pages_run_on_a_cluster",
    "test_the_site_builds",
)
SLOW_FIXTURES = {"quantkit_command", "quantkit_json", "shared"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--regen` rewrites pages that are made of code; `--fast` is the loop for everyday work."""
    parser.addoption("--regen", action="store_true", help="rewrite generated pages instead of comparing them")
    parser.addoption(
        "--fast",
        action="store_true",
        help="leave out whole commands, pages, trained networks and whatever is marked slow, and try fewer examples",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Fewer examples of each law with `--fast`."""
    if config.getoption("--fast"):
        settings.load_profile("fast")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Every other worker imports the tests from the last one on, so that each file is compiled once and not by all."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    if not int(worker) % 2 or [Path(given).resolve() for given in session.config.args] != [ROOT / "tests"]:
        return
    for path in sorted((ROOT / "tests").rglob("test_*.py"), reverse=True):
        with contextlib.suppress(Exception, pytest.skip.Exception):  # the collection reports them
            importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `--fast`, leave out what takes long by its nature; the longest tests begin first, beside the others."""
    items.sort(key=lambda item: not item.name.startswith(LONGEST))
    if not config.getoption("--fast"):
        return
    left = [item for item in items if is_slow(item)]
    items[:] = [item for item in items if not is_slow(item)]
    config.hook.pytest_deselected(items=left)


def pytest_collection_finish() -> None:
    """Leave out of every later garbage collection what the collection of the tests made, which stays to the end."""
    gc.collect()
    gc.freeze()


def is_slow(item: pytest.Item) -> bool:
    """Whether a test runs whole commands or trained networks, or is marked slow."""
    fixtures = set(getattr(item, "fixturenames", ()))
    folder = item.path.relative_to(ROOT / "tests").parts[0]
    return folder in WHOLE or bool(fixtures & SLOW_FIXTURES) or item.get_closest_marker("slow") is not None
