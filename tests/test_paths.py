"""Looking at paths: everything that the system refuses is an error of quantkit, in the Python interface too."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import quantkit
from quantkit.errors import QuantkitError, UsageError
from quantkit.paths import beside, exists, file_status, given_list, given_path, is_file, is_folder, real_path, same_file
from tests.support.networks import network

LONG, NUL, CIRCLE, SURROGATE = "a" * 300, "a\0b", "circle", "\ud800"
HOSTILE = {"long": LONG, "NUL": NUL, "circle": CIRCLE, "in circle": "circle/x", "no character": SURROGATE}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / CIRCLE).symlink_to(CIRCLE)
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "to file").symlink_to("file")
    (tmp_path / "to nothing").symlink_to("nothing")
    return tmp_path


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("look", [exists, is_file, is_folder, lambda path: same_file("file", path)])
def test_a_refusal_names_the_path(look: Callable[[str], object], name: str) -> None:
    with pytest.raises(QuantkitError) as caught:
        look(HOSTILE[name])
    assert HOSTILE[name] in caught.value.problem
    assert caught.value.remedy


def test_a_folder_that_may_not_be_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    """As root nothing is forbidden: the system's answer is replaced."""

    def forbid(path: object) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "stat", forbid)
    with pytest.raises(QuantkitError, match="closed/x: Permission denied"):
        exists("closed/x")


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("file", (True, True, False)),
        ("to file", (True, True, False)),
        ("folder", (True, False, True)),
        ("nothing", (False, False, False)),
        ("to nothing", (False, False, False)),
        ("file/x", (False, False, False)),
        ("", (False, False, False)),
    ],
)
def test_what_is_there(path: str, found: tuple[bool, bool, bool]) -> None:
    assert (exists(path), is_file(path), is_folder(path)) == found
    assert (file_status(path) is not None) == found[0]


def test_two_paths_to_one_file() -> None:
    os.link("file", "hard")
    assert same_file("file", "to file")
    assert same_file("file", "hard")
    assert same_file("folder/../nothing", "nothing")
    assert same_file("nothing", "to nothing"), "where it would be created"
    assert not same_file("file", "folder")
    assert real_path("to nothing") == Path("nothing").absolute()


@pytest.mark.parametrize(("path", "there"), [("a/x.onnx", "a/y"), (".", "y"), ("", "y"), ("/", "/y")])
def test_a_file_beside_any_path(path: str, there: str) -> None:
    assert beside(Path(path), "y") == Path(there)


STATISTICS = "s.safetensors"
CALLS: dict[str, Callable[[str], Any]] = {
    "calibrate": lambda path: quantkit.calibrate(path, "x.npz"),
    "calibrate, data": lambda path: quantkit.calibrate("m.onnx", path),
    "calibrate, output": lambda path: quantkit.calibrate("m.onnx", "x.npz", output=path),
    "calibrate, preprocess": lambda path: quantkit.calibrate("m.onnx", "x.npz", preprocess=path),
    "quantize": lambda path: quantkit.quantize(path, "o.onnx", statistics=STATISTICS),
    "quantize, output": lambda path: quantkit.quantize("m.onnx", path, statistics=STATISTICS),
    "quantize, statistics": lambda path: quantkit.quantize("m.onnx", "o.onnx", statistics=path),
    "quantize, table": lambda path: quantkit.quantize("m.onnx", "o.onnx", table=path),
    "lint": quantkit.lint,
    "lint, output": lambda path: quantkit.lint("m.onnx", fix_to=path),
    "evaluate": lambda path: quantkit.evaluate(["m.onnx", path], "x.npz"),
    "evaluate, table": lambda path: quantkit.evaluate(["m.onnx", f"m.onnx+{path}"], "x.npz"),
    "evaluate, data": lambda path: quantkit.evaluate(["m.onnx"], path),
    "evaluate, labels": lambda path: quantkit.evaluate(["m.onnx"], "x.npz", labels=path),
    "compare": lambda path: quantkit.compare([path, path]),
    "layers": lambda path: quantkit.layers("m.onnx", statistics=path),
    "layers, Q/DQ": lambda path: quantkit.layers("m.onnx", against=path),
    "tune": lambda path: quantkit.tune("m.onnx", "x.npz", max_drop=1.0, output=path),
    "read_table": quantkit.read_table,
    "convert": lambda path: quantkit.convert(path, "o.calib", tensorrt_version="8.6.1"),
    "adopt": lambda path: quantkit.adopt(path, "m.onnx"),
    "from_qdq": lambda path: quantkit.from_qdq(path, "o.calib"),
    "from_qdq, output": lambda path: quantkit.from_qdq("m.onnx", path),
    "merge": lambda path: quantkit.merge([path, path], "o.safetensors"),
    "merge, output": lambda path: quantkit.merge([STATISTICS], path),
    "export": lambda path: quantkit.export_triton(path, "repository"),
    "export, output": lambda path: quantkit.export_triton("m.onnx", path),
    "export, labels": lambda path: quantkit.export_triton("m.onnx", "repository", labels=path),
    "export, bench": lambda path: quantkit.export_triton("m.onnx", "repository", bench=path),
    "bench": lambda path: quantkit.bench([path]),
    "inspect": quantkit.inspect,
    "settings": quantkit.read_settings,
    "preprocess": quantkit.load_preprocess,
    "run": lambda path: quantkit.run(quantkit.Settings(model=path, data="x.npz")),
    "run, data": lambda path: quantkit.run(quantkit.Settings(model="m.onnx", data=path)),
    "run, output": lambda path: quantkit.run(quantkit.Settings(model="m.onnx", data="x.npz", output=path)),
    "from_tflite": lambda path: quantkit.from_tflite(path, "o.onnx"),
    "from_tf, output": lambda path: quantkit.from_tf("saved", path),
}


@pytest.mark.parametrize("name", CALLS)
def test_no_function_lets_an_error_of_the_system_through(name: str, here: Path) -> None:
    onnx.save(network([onnx.helper.make_node("Relu", ["x"], ["y"])], {"x": ["N", 4]}, ["y"]), here / "m.onnx")
    np.savez(here / "x.npz", x=np.ones((4, 4), np.float32))
    quantkit.calibrate("m.onnx", "x.npz", output="s.calib")
    (here / "s.stats.safetensors").rename(STATISTICS)
    for hostile in HOSTILE.values():
        with pytest.raises(QuantkitError):
            CALLS[name](hostile)


WRONG = [5, None, b"m.onnx", ["m.onnx"], np.float32(1), object()]


@pytest.mark.parametrize("value", WRONG, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize(
    "read",
    [
        quantkit.inspect,
        quantkit.lint,
        quantkit.read_table,
        quantkit.read_statistics,
        quantkit.read_settings,
        lambda value: quantkit.calibrate(value, "x.npz", output="o"),
        lambda value: quantkit.convert("t", value),
        lambda value: quantkit.evaluate([value], "x.npz"),
        lambda value: quantkit.compare([value, value]),
        lambda value: quantkit.merge([value], "o"),
        lambda value: quantkit.export_triton(value, "o"),
    ],
)
def test_a_value_that_is_no_path_is_named_in_python(read: Callable[[Any], object], value: object) -> None:
    with pytest.raises(UsageError, match=f"is of type {type(value).__name__}, not a path"):
        read(value)


def test_one_path_for_a_list_is_that_path() -> None:
    assert given_list("ab", "models") == ["ab"]
    with pytest.raises(UsageError, match="models is of type int, not a list"):
        given_list(5, "models")  # type: ignore[arg-type]


def test_settings_of_another_type_are_named() -> None:
    with pytest.raises(UsageError, match="settings is of type str"):
        quantkit.run("quantkit.toml")  # type: ignore[arg-type]


def test_a_tilde_in_quotes_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    assert given_path("~/m.onnx", "the model") == home / "m.onnx"
    assert given_path("a/~/m.onnx", "the model") == Path("a/~/m.onnx")
    assert given_path("~other", "the model") == Path("~other")
    (here / "~").mkdir()
    assert given_path("~/m.onnx", "the model") == Path("~/m.onnx"), "a folder of that name is what was meant"
