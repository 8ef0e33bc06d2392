"""Files that land whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import quantkit
from quantkit.artifact import canonical_json, check_writable, sha256_of, write_all, write_whole
from quantkit.errors import OutputError

OLD, NEW = b"old", b"new" * 1000


def content(folder: Path) -> dict[str, bytes]:
    """Everything in a folder, hidden files included."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def write_one(path: Path, content: bytes) -> None:
    write_all({path: content})


writers = pytest.mark.parametrize("write", [write_whole, write_one])
Write = Callable[[Path, bytes], None]


@writers
@pytest.mark.parametrize("before", [{}, {"x": OLD}])
def test_a_file_is_written_whole_and_nothing_else(tmp_path: Path, write: Write, before: dict[str, bytes]) -> None:
    for name, old in before.items():
        (tmp_path / name).write_bytes(old)
    write(tmp_path / "x", NEW)
    assert content(tmp_path) == {"x": NEW}


def test_several_files_are_written(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(OLD)
    write_all({tmp_path / "a": b"1", tmp_path / "b": b"2", tmp_path / "c": b""})
    assert content(tmp_path) == {"a": b"1", "b": b"2", "c": b""}
    write_all({})


@writers
@pytest.mark.parametrize("where", ["absent/x", "file/x"])
def test_where_no_file_can_be_nothing_is_written(tmp_path: Path, write: Write, where: str) -> None:
    (tmp_path / "file").write_bytes(OLD)
    with pytest.raises(OutputError, match=r"cannot write .*x: (.|\n)*output="):
        write(tmp_path / where, NEW)
    with pytest.raises(OutputError, match="cannot write"):
        check_writable(tmp_path / where)
    assert content(tmp_path) == {"file": OLD}


@writers
def test_a_folder_is_not_replaced(tmp_path: Path, write: Write) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        write(tmp_path / "x", NEW)
    assert content(tmp_path) == {}


@writers
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_rename_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write, number: int
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    (tmp_path / "x").write_bytes(OLD)
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OutputError, match=os.strerror(number)) as caught:
        write(tmp_path / "x", NEW)
    assert ("free some space" in caught.value.remedy) == (number == errno.ENOSPC)
    assert content(tmp_path) == {"x": OLD}


@writers
def test_an_interruption_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    (tmp_path / "x").write_bytes(OLD)
    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "x", NEW)
    assert content(tmp_path) == {"x": OLD}


@pytest.mark.parametrize("call", ["write_whole(x, new)", "write_all({y: b'1', x: new})"])
def test_a_disk_that_is_full_half_way_leaves_the_old_file(tmp_path: Path, call: str) -> None:
    """A limit on the size of files stands for the full disk: the write fails after its first kilobyte."""
    pytest.importorskip("resource")
    (tmp_path / "x").write_bytes(OLD)
    script = f"""
import resource
from pathlib import Path
from quantkit.artifact import write_all, write_whole
from quantkit.errors import OutputError
resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
x, y, new = Path("x"), Path("y"), {NEW!r}
try:
    {call}
except OutputError as error:
    assert "cannot write x" in error.problem
else:
    raise AssertionError("written")
"""
    package = str(Path(quantkit.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": package, "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, check=True)
    assert content(tmp_path) == {"x": OLD}


def test_where_one_of_several_cannot_be_written_none_is(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(OLD)
    with pytest.raises(OutputError, match="absent"):
        write_all({tmp_path / "a": NEW, tmp_path / "b": NEW, tmp_path / "absent" / "c": NEW})
    assert content(tmp_path) == {"a": OLD}


def test_where_one_of_several_cannot_be_replaced_none_is(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(OLD)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="folder"):
        write_all({tmp_path / "a": NEW, tmp_path / "b": NEW, tmp_path / "folder": NEW})
    assert content(tmp_path) == {"a": OLD}


def test_looking_whether_a_file_can_be_written_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(OLD)
    check_writable(tmp_path / "x")
    check_writable(tmp_path / "y")
    assert content(tmp_path) == {"x": OLD}


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(values)
def test_canonical_json_says_the_value_and_only_the_value(value: object) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text


@given(st.dictionaries(st.text(), st.integers(), min_size=2), st.randoms(use_true_random=False))
def test_canonical_json_does_not_see_the_order_of_keys(value: dict[str, int], shuffle) -> None:
    items = list(value.items())
    shuffle.shuffle(items)
    assert canonical_json(dict(items)) == canonical_json(value)


def test_canonical_json_by_example() -> None:
    assert canonical_json({"b": [1, 2.5, None], "a": "é"}) == '{"a":"é","b":[1,2.5,null]}'
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not JSON compliant"):
            canonical_json(bad)


def test_sha256_is_that_of_the_standard() -> None:
    assert sha256_of(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@writers
@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_no_file_is_not_replaced_by_one(tmp_path: Path, write: Write, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    before = path.stat().st_mode
    with pytest.raises(OutputError, match=r"cannot write .*: it is (a|not)"):
        write(path, NEW)
    with pytest.raises(OutputError, match=r"cannot write .*: it is (a|not)"):
        check_writable(path)
    assert path.stat().st_mode == before
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_missing_folder_is_named_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"there is no folder .*none") as caught:
        check_writable(tmp_path / "none" / "x.onnx", "--html")
    assert caught.value.remedy == "create the folder first, or write elsewhere with --html"
