"""What the commands write: every file of it is looked for before the work, and nobody else's is replaced or removed."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
import sys
from pathlib import Path

import click
import numpy as np
import onnx
import pytest

from quantkit.backends.tensorrt_rtx.compiling import compiler_version
from quantkit.cli import invoke
from quantkit.cli.application import app
from quantkit.staging import StagedFiles
from tests.support.networks import network

COMMANDS = {
    "calibrate": ["calibrate", "m.onnx", "--data", "x.npz", "--rule", "entropy,minmax"],
    "stats table": ["stats", "table", "s.safetensors", "--rule", "mse,minmax", "--output", "made.calib"],
    "stats merge": ["stats", "merge", "s.safetensors", "t.safetensors", "--output", "made.safetensors"],
    "table convert": ["table", "convert", "t.calib", "--output", "made.calib", "--tensorrt-version", "8.6.1"],
    "table adopt": ["table", "adopt", "u.calib", "m.onnx"],
    "table from-qdq": ["table", "from-qdq", "q.onnx", "--output", "made.calib"],
    "quantize": ["quantize", "m.onnx", "--stats", "s.safetensors"],
    "quantize, weights outside": ["quantize", "outside.onnx", "--stats", "s.safetensors"],
    "lint": ["lint", "twice.onnx", "--fix"],
    "evaluate": ["evaluate", "m.onnx", "q.onnx", "--data", "x.npz", "--output", "e.json", "--html", "e.html"],
    "layers": ["layers", "m.onnx", "--stats", "s.safetensors", "--data", "x.npz", "-o", "e.txt", "--html", "e.html"],
    "tune": ["tune", "m.onnx", "--data", "x.npz", "--max-drop", "100", "--output", "here", "--html", "t.html"],
    "run": ["run", "m.onnx", "--data", "x.npz", "--output", "here", "--no-layers", "--repair", "none"],
    "init": ["init", "m.onnx", "--data", "x.npz"],
    "export triton": [
        "export",
        "triton",
        "m.onnx",
        "--output",
        "here",
        "--preprocess",
        "unit",
        "--labels",
        "names.txt",
    ],
}
if compiler_version() is not None:
    COMMANDS["compile"] = [
        "compile", "m.onnx", "--for", "sm86", "--no-compare", "--save", "e.engine", "--record", "e.compiled.json",
    ]  # fmt: skip
WITHOUT_FORCE = {"run"}
PLACE = StagedFiles.place
NO_UTF8 = os.fsdecode(b"\xff")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the commands read."""
    folder = tmp_path_factory.mktemp("inputs")
    random = np.random.default_rng(0)
    weights = {"w": random.standard_normal((8, 3, 3, 3)).astype("f4"), "v": random.standard_normal((8, 5)).astype("f4")}
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        onnx.helper.make_node("GlobalAveragePool", ["c"], ["g"], name="pool"),
        onnx.helper.make_node("Flatten", ["g"], ["f"], name="flat"),
        onnx.helper.make_node("MatMul", ["f", "v"], ["y"], name="fc"),
    ]
    model = network(nodes, {"x": ["N", 3, 16, 16]}, ["y"], weights)
    onnx.save(model, folder / "m.onnx")
    onnx.save(quantized_twice(), folder / "twice.onnx")
    onnx.save(model, folder / "outside.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    np.savez(folder / "x.npz", x=random.random((16, 3, 16, 16), np.float32), y=np.arange(16) % 5)
    np.savez(folder / "z.npz", x=random.random((16, 3, 16, 16), np.float32))
    (folder / "names.txt").write_text("a\nb\nc\nd\ne\n")
    (folder / "here").mkdir()
    (folder / "here" / "notes.txt").write_text("harmless")
    here = [
        str(folder / name) for name in ("m.onnx", "s.safetensors", "q.onnx", "x.npz", "z.npz", "i.calib", "u.calib")
    ]
    for name, data in (("s", here[3]), ("t", here[4])):
        assert (
            called("calibrate", here[0], "--data", data, "--histogram", "invariant", "-o", folder / f"{name}.calib")
            == 0
        )
        (folder / f"{name}.stats.safetensors").rename(folder / f"{name}.safetensors")
    assert called("quantize", here[0], "--stats", here[1], "--output", here[2]) == 0
    shutil.copy(folder / "t.calib", folder / "u.calib")
    return folder


def quantized_twice() -> onnx.ModelProto:
    """A network with two equal pairs on one tensor, which `lint --fix` makes one."""
    make = onnx.helper.make_node
    pairs = [
        node
        for k in "12"
        for node in (
            make("QuantizeLinear", ["x", "s", "z"], [f"q{k}"]),
            make("DequantizeLinear", [f"q{k}", "s", "z"], [f"d{k}"]),
        )
    ]
    nodes = [*pairs, make("Add", ["d1", "d2"], ["y"])]
    return network(nodes, {"x": ["N", 4]}, ["y"], {"s": np.float32(0.1), "z": np.int8(0)})


@pytest.fixture
def folder(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the inputs as the working directory."""
    shutil.copytree(inputs, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def called(*arguments: object) -> int:
    return invoke([str(argument) for argument in arguments])


def tree(folder: Path) -> dict[str, bytes | str]:
    """Relative path → content, the target of a link, or an empty text for a folder."""
    found: dict[str, bytes | str] = {}
    for path in folder.rglob("*"):
        mode = path.lstat().st_mode
        content = os.readlink(path) if stat.S_ISLNK(mode) else path.read_bytes() if stat.S_ISREG(mode) else ""
        found[path.relative_to(folder).as_posix()] = content
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_each_file_is_looked_for_before_the_work(
    name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that lies where a command would write one: it is named, and everything stays as it was."""
    before = tree(folder)
    shutil.copytree(folder, tmp_path / "done")
    monkeypatch.chdir(tmp_path / "done")
    assert called(*COMMANDS[name]) == 0, capsys.readouterr().err
    done = tree(tmp_path / "done")
    assert {path: done[path] for path in before} == before
    written = [path for path in done if path not in before and done[path] != "" and "steps/" not in path]
    assert written
    monkeypatch.chdir(folder)
    for path in written:
        for foreign in ("a file", "a folder", "a link", "a link to nothing"):
            mine = folder / path
            mine.parent.mkdir(parents=True, exist_ok=True)
            with_mine = put_foreign(mine, foreign)
            capsys.readouterr()
            code, said = called(*COMMANDS[name]), capsys.readouterr().err
            assert with_mine.items() <= tree(folder).items(), f"{path} as {foreign}"
            if foreign != "a folder":  # which calibrate writes into
                assert code == 1, f"{path} as {foreign}"
                assert tree(folder) == with_mine, f"{path} as {foreign}"
                assert mine.parts[-2 if "triton" in name else -1] in said, f"{path} as {foreign}"
            clear(folder, before)
        if name not in WITHOUT_FORCE:
            mine.parent.mkdir(parents=True, exist_ok=True)
            mine.write_text("mine")
            assert called(*COMMANDS[name], "--force") == 0, capsys.readouterr().err
            assert mine.read_bytes() != b"mine"
            clear(folder, before)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("run", "export triton")])
def test_a_file_that_appears_during_the_work_is_not_replaced(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody writes a file in the place of each output after it was looked for, and before it is written."""
    before, mine = tree(folder), set[Path]()

    def place(files: StagedFiles, path: Path) -> Path:
        mine.add(path.absolute())
        path.write_text("mine")
        return PLACE(files, path)

    with monkeypatch.context() as patch:
        patch.setattr(StagedFiles, "place", place)
        assert called(*COMMANDS[name]) == 1
    assert "already exists" in capsys.readouterr().err
    written = {path: content for path, content in tree(folder).items() if path not in before}
    assert {path for path, content in written.items() if content == b"mine"} == {
        path.relative_to(folder).as_posix() for path in mine
    }
    assert not {path for path, content in written.items() if content not in (b"mine", "")}


def put_foreign(path: Path, kind: str) -> dict[str, bytes | str]:
    """Put something of somebody else's at a path; return the content of the working directory."""
    if kind == "a folder":
        path.mkdir()
        (path / "thesis.txt").write_text("mine")
    elif kind.startswith("a link"):
        path.symlink_to(Path("names.txt" if kind == "a link" else "a disk/that is not there").absolute())
    else:
        path.write_text("mine")
    return tree(Path())


def clear(folder: Path, before: dict[str, bytes | str]) -> None:
    """Remove what was not there before."""
    for path in sorted(tree(folder).keys() - before.keys(), reverse=True):
        there = folder / path
        there.rmdir() if there.is_dir() and not there.is_symlink() else there.unlink()
    assert tree(folder) == before


def test_weights_in_a_folder_whose_name_is_no_utf8_are_refused_in_a_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = folder.rename(tmp_path / NO_UTF8)
    assert called("calibrate", work / "outside.onnx", "--data", work / "x.npz") == 1
    assert "its name is not UTF-8, which onnxruntime needs\n  → rename the folder" in capsys.readouterr().err
    assert not list(work.glob("outside.*calib*"))


PLACES = ("PATH", "FILE", "DIR", "MODEL", "TABLE", "STATS", "RUN", "ENGINE")
"""Words in the names of parameters that take a path."""
MORE = {
    "inspect": ["inspect", "m.onnx"],
    "table show": ["table", "show", "t.calib"],
    "table diff": ["table", "diff", "t.calib", "u.calib"],
    "compare": ["compare", "e.json", "e.json"],
    "bench": ["bench", "m.onnx", "--batch", "1", "--seconds", "0.001"],
    "build": ["build", "m.onnx"],
    "from-torch": ["from-torch", "m:f", "--output", "o.onnx"],
    "from-tf": ["from-tf", "saved", "--output", "o.onnx"],
    "from-tflite": ["from-tflite", "m.tflite", "--output", "o.onnx"],
}


def path_parameters(command: list[str]) -> list[tuple[str, list[str]]]:
    """The command line with `{}` in the place of each path that it takes."""
    found: click.Command = app
    names = []
    while isinstance(found, click.Group):
        names.append(command[len(names)])
        found = found.commands[names[-1]]
    lines = [[*command[:at], "{}", *command[at + 1 :]] for at in range(len(names), len(command)) if "." in command[at]]
    for parameter in found.params:
        takes = isinstance(parameter.type, click.Path) or any(word in (parameter.metavar or "") for word in PLACES)
        if isinstance(parameter, click.Option) and takes:
            lines += [[*command, parameter.opts[0], text] for text in ("{}", "{}.onnx", "{}/x.npz")]
    return lines


@pytest.mark.parametrize("name", [*COMMANDS, *MORE])
def test_a_path_that_the_system_refuses_is_one_line(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is too long, links in a circle, a file where a folder should be: for every path of every command."""
    for circle in ("circle", "circle.onnx"):
        (folder / circle).symlink_to(circle)

    def not_caught(path: object, error: OSError) -> None:
        raise AssertionError(f"{path} is refused by the last handler only") from error

    monkeypatch.setattr("quantkit.cli.application.path_failure", not_caught)
    before = tree(folder)
    for line in path_parameters((COMMANDS | MORE)[name]):
        for hostile in ("a" * 300, "circle", "names.txt/x"):
            code = called(*(text.format(hostile) for text in line))
            said = capsys.readouterr().err
            assert code in (1, 2) or name == "bench", (line, hostile, said)  # which uses neither without a GPU
            assert not code or "→" in said or "Error:" in said
            assert before.items() <= tree(folder).items()
            clear(folder, before)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such names")
@pytest.mark.parametrize("name", [name for name in [*COMMANDS, *MORE] if not name.startswith(("from-", "build"))])
def test_names_that_are_no_utf8_work_like_any_other(
    name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "compare":
        called("evaluate", "m.onnx", "--data", "x.npz", "--output", "e.json", "-q")
    work = tmp_path / f"work{NO_UTF8}"
    folder.rename(work)
    monkeypatch.chdir(work)
    for path in [path for path in work.iterdir() if path.is_file() and path.suffix != ".bin"]:
        path.rename(path.with_name(f"{path.stem}{NO_UTF8}{path.suffix}"))
    line = [re.sub(r"(?<=[a-z])\.(?=[a-z])", f"{NO_UTF8}.", text) for text in (COMMANDS | MORE)[name]]
    capsys.readouterr()
    for as_json in ([], ["--json"]):
        done = tree(work)
        code = called(*line, *as_json)
        shown = capsys.readouterr()
        if name == "init":
            assert code == 2
            assert "is not UTF-8, which TOML needs" in shown.err
        else:
            assert code == 0, shown.err
        if as_json:
            json.loads(shown.out)
        clear(work, done)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_disk_that_is_full_is_one_line_and_leaves_nothing(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first rename fails, which every command does at the end of its work, or `run` of its first step."""

    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source), None, str(target))

    before = tree(folder)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        assert called(*COMMANDS[name]) == 1
    assert re.search(
        r"quantkit: cannot write .*: No space left on device\n  → free some space, or", capsys.readouterr().err
    )
    assert tree(folder) == before
    assert called(*COMMANDS[name]) == 0, "and nothing of it is in the way"
