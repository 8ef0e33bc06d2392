"""The TensorRT that a table is for: asked for, installed, or the default. The library is asked, not its bindings."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from quantkit import tensorrt_version
from quantkit.errors import UsageError
from quantkit.tensorrt_version import target_version

BUNDLED_LIBRARIES = tensorrt_version.bundled_libraries
"""What tests go without (`without_tensorrt` in conftest.py)."""


def library(folder: Path, number: int) -> Path:
    """A library that says of itself what libnvinfer of that version would say."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to make a library with")
    source, made = folder / "nvinfer.c", folder / "libnvinfer.so.10"
    source.write_text(f"int getInferLibVersion(void) {{ return {number}; }}\n")
    subprocess.run([compiler, "-shared", "-fPIC", str(source), "-o", str(made)], check=True)
    return made


@pytest.mark.parametrize(("number", "text"), [(8601, "8.6.1"), (100300, "10.3.0"), (101303, "10.13.3")])
def test_the_installed_library_is_asked(
    number: int, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = library(tmp_path, number)
    monkeypatch.setattr(tensorrt_version, "bundled_libraries", lambda: [made])
    target = target_version(None)
    assert target.number == number
    assert target.source == "the installed TensorRT"
    assert target_version("9.0.0").number == 9000, f"what is asked for wins over {text}"


def test_a_library_in_a_python_package_is_found_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "tensorrt_libs"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    library(package, 100100)
    monkeypatch.setattr(tensorrt_version, "bundled_libraries", BUNDLED_LIBRARIES)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert tensorrt_version.installed_number() == 100100


def test_tensorrt_11_reads_no_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantkit.tensorrt_version.installed_number", lambda: 110000)
    target = target_version(None)
    assert target.number == 100300
    assert "TensorRT 11 reads no tables" in target.source
    with pytest.raises(UsageError, match="version 11 removed them"):
        target_version("11.0.0")


def test_the_default_says_that_it_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantkit.tensorrt_version.installed_number", lambda: None)
    target = target_version(None)
    assert target.number == 100300
    assert "default" in target.source
    assert "--tensorrt-version" in target.source
