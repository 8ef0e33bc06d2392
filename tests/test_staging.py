"""Files are prepared beside their place: companions never mix, and only our own leftovers are removed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from quantkit.errors import OutputError
from quantkit.staging import MARK, SIGNATURE, claimed_outputs, link_or_copy, replace_all, staged_files, staging_folder


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def run_python(script: str, *arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", script, *map(str, arguments)])


KILLED = """
import os, signal, sys
from pathlib import Path
from quantkit.staging import staged_files

with staged_files() as new:
    new.write(Path(sys.argv[1]), b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_kill_leaves_is_removed_by_the_next_write(tmp_path: Path) -> None:
    assert run_python(KILLED, tmp_path / "x").wait() == -signal.SIGKILL
    assert [path.read_text() for path in tmp_path.glob(".quantkit.*.tmp/0")] == ["half"]
    with staged_files() as new:
        new.write(tmp_path / "y", b"whole")
    assert content(tmp_path) == {"y": "whole"}


def test_folders_of_others_and_of_running_processes_stay(tmp_path: Path) -> None:
    foreign = [tmp_path / name for name in (".quantkit.0.tmp", ".quantkit.1.tmp", ".quantkit.2.tmp")]
    for folder in foreign:
        folder.mkdir()
        (folder / "thesis.txt").write_text("mine")
    (foreign[0] / MARK).write_text("mine")
    (foreign[1] / MARK).write_bytes(SIGNATURE + b"and more")
    (tmp_path / ".quantkit.3.tmp").write_text("a file")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / MARK).write_bytes(SIGNATURE)
    (tmp_path / ".quantkit.4.tmp").symlink_to(elsewhere)
    before = sorted(tmp_path.rglob("*"))
    with staging_folder(tmp_path) as first, staging_folder(tmp_path) as second:
        assert first.exists()
        assert second.exists()
    assert sorted(tmp_path.rglob("*")) == before


def test_outputs_are_claimed_by_one_at_a_time(tmp_path: Path) -> None:
    with claimed_outputs([tmp_path / "a", tmp_path / "b"]):
        with pytest.raises(OutputError, match=r"another process is writing .*b\n"), claimed_outputs([tmp_path / "b"]):
            raise AssertionError("bug in the test: two claim it")
        with claimed_outputs([tmp_path / "c"]), staged_files() as new:
            new.write(tmp_path / "a", b"whole")
    with claimed_outputs([tmp_path / "b"]):
        pass
    assert content(tmp_path) == {"a": "whole"}


def test_a_claim_ends_with_its_process(tmp_path: Path) -> None:
    script = KILLED.replace("staged_files() as new", "claimed_outputs([Path(sys.argv[1])]), staged_files() as new")
    assert run_python(script.replace("import staged", "import claimed_outputs, staged"), tmp_path / "x").wait() < 0
    with claimed_outputs([tmp_path / "x"]):
        pass
    assert content(tmp_path) == {}


def test_where_no_folder_is_nothing_is_claimed(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write .*x: No such file"), claimed_outputs([tmp_path / "no" / "x"]):
        raise AssertionError("bug in the test: it was claimed")


def test_a_folder_that_the_caller_has_locked_is_written(tmp_path: Path) -> None:
    """As `flock FOLDER quantkit …` does: the command must not wait for whoever waits for it."""
    fcntl = pytest.importorskip("fcntl")
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    script = KILLED.replace("    os.kill", "    if 0: os.kill")
    assert run_python(script, tmp_path / "x").wait(60) == 0
    os.close(descriptor)
    assert content(tmp_path) == {"x": "half"}


@pytest.mark.parametrize("kind", ["file", "link", "pipe"])
def test_a_lock_of_somebody_else_stays(tmp_path: Path, kind: str) -> None:
    lock = tmp_path / ".quantkit.lock"
    if kind == "pipe":
        os.mkfifo(lock)
    elif kind == "link":
        lock.symlink_to("thesis.txt")
    else:
        lock.write_text("mine")
    (tmp_path / ".quantkit.0.tmp").mkdir()
    os.mkfifo(tmp_path / ".quantkit.0.tmp" / MARK)
    before = {path.name: path.lstat().st_mode for path in tmp_path.rglob("*")}
    with staged_files() as new:
        new.write(tmp_path / "x", b"whole")
    assert before.items() <= {path.name: path.lstat().st_mode for path in tmp_path.rglob("*")}.items()
    assert (tmp_path / "x").read_text() == "whole"
    assert not (tmp_path / "thesis.txt").exists()


WRITER = """
import sys
from pathlib import Path
from quantkit.staging import staged_files

folder, text = Path(sys.argv[1]), sys.argv[2].encode()
for _ in range(200):
    with staged_files() as new:
        for name in "abc":
            new.write(folder / name, text)
"""


def test_companions_of_two_writers_never_mix(tmp_path: Path) -> None:
    writers = [run_python(WRITER, tmp_path, text) for text in "xy"]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert set(content(tmp_path)) == set("abc")
    assert len(set(content(tmp_path).values())) == 1


def test_the_last_file_never_lies_beside_companions_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("weights", "model"):
        (tmp_path / name).write_text("old")
    seen: list[dict[str, str]] = []
    rename = os.replace

    def watched(source: Path, target: Path) -> None:
        seen.append({path.name: path.read_text() for path in tmp_path.iterdir() if path.name[0] != "."})
        rename(source, target)

    monkeypatch.setattr(os, "replace", watched)
    with staged_files() as new:
        new.write(tmp_path / "weights", b"new")
        new.write(tmp_path / "model", b"new")
    assert seen == [{"weights": "old"}, {"weights": "new"}]
    assert content(tmp_path) == {"weights": "new", "model": "new"}


@pytest.mark.parametrize("at", [1, 2, 3])
def test_files_folders_and_links_are_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x").write_text("old")
    (tmp_path / "link").symlink_to("folder/x")
    rename, calls = os.replace, iter(range(9))

    def failing(source: Path, target: Path) -> None:
        if next(calls) == at:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with staging_folder(tmp_path) as staging:
        (staging / "0").mkdir()
        for name in ("1", "2"):
            (staging / name).write_text("new")
        targets = {
            tmp_path / "folder": staging / "0",
            tmp_path / "new": staging / "1",
            tmp_path / "link": staging / "2",
        }
        with pytest.raises(KeyboardInterrupt):
            replace_all(targets)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == [
        "folder",
        "folder/x",
        "link",
    ]
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "link").read_text() == "old"


def test_without_hard_links_there_are_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "x").write_text("text")
    (tmp_path / "link").symlink_to("x")
    for name in ("x", "link"):
        link_or_copy(tmp_path / name, tmp_path / f"{name}.copy")
        assert (tmp_path / f"{name}.copy").is_symlink() == (name == "link")
    assert (tmp_path / "x.copy").read_text() == "text"
