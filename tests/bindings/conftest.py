"""TensorRT's own Python bindings, in a process of their own, with the stub libraries that `fetch.py` makes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest
from fetch import RELEASES, Release, is_complete

ROOT = Path(__file__).resolve().parents[2]
TOLD = "QUANTKIT_TOUCHED"
"""Names the file that the checks in `inside/` write, which run with these bindings only."""
collect_ignore = [] if TOLD in os.environ else ["inside"]
REMEDY = "python tests/bindings/fetch.py DIR && QUANTKIT_BINDINGS=DIR pytest"


@dataclass(frozen=True, slots=True)
class Bindings:
    """One version: what it calls itself, what its libnvinfer answers, and where it lies."""

    version: str
    number: int
    folder: Path

    @property
    def major(self) -> int:
        return int(self.version.partition(".")[0])

    def run(self, code: str, *, strict: bool = False) -> str:
        """What a Python program prints that finds this `tensorrt`, and quantkit; strict: a DeprecationWarning fails it.

        The bindings don't look whether their warning became an exception: a strict failure can read `SystemError: …
        returned a result with an exception set`, and where C++ calls back into Python it is only logged.
        """
        options = ["-W", "error::DeprecationWarning"] if strict else []
        done = self.python(*options, "-c", dedent(code))
        assert done.returncode == 0, f"TensorRT {self.version}, exit status {done.returncode}:\n{done.stderr}"
        return done.stdout

    def python(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run Python where it finds this `tensorrt`, and quantkit."""
        libraries = [str(self.folder / "lib"), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(self.folder / "site"), str(ROOT)]),
            "LD_LIBRARY_PATH": os.pathsep.join(libraries),
            **environment,
        }
        return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, env=environment)


@dataclass(frozen=True, slots=True)
class Inside:
    """How the checks in `inside/` went with one version, and what they touched (see `checked.py`)."""

    status: int
    said: str
    touched: frozenset[str]
    deprecated: frozenset[str]


@pytest.fixture(scope="session", params=RELEASES, ids=lambda release: release.version)
def bindings(request: pytest.FixtureRequest) -> Bindings:
    """Each version in turn, where it has been fetched."""
    release: Release = request.param
    home = os.environ.get("QUANTKIT_BINDINGS")
    if not home:
        pytest.skip(f"no TensorRT bindings: {REMEDY}")
    folder = Path(home).resolve() / release.version
    if not is_complete(folder):
        pytest.skip(f"no TensorRT bindings {release.version} for this Python: {REMEDY}")
    return Bindings(release.version, release.number, folder)


@pytest.fixture(scope="session")
def inside(bindings: Bindings, tmp_path_factory: pytest.TempPathFactory) -> Inside:
    """The checks in `inside/`, run once with each version."""
    told = tmp_path_factory.mktemp("inside") / "touched.json"
    done = bindings.python(
        *("-m", "pytest", "-n0", "-q", "--tb=short", "-p", "no:cacheprovider", "-o", "python_files=check_*.py"),
        str(Path(__file__).with_name("inside")),
        **{TOLD: str(told)},
    )
    document = json.loads(told.read_text()) if told.exists() else {"touched": [], "deprecated": []}
    touched, deprecated = frozenset(document["touched"]), frozenset(document["deprecated"])
    return Inside(done.returncode, f"{done.stdout}\n{done.stderr}", touched, deprecated)
