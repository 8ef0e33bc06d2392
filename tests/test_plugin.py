"""Code of the user: a wrong name is a usage error before anything is imported; what it changes stays its own."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from quantkit.errors import UsageError
from quantkit.plugin import call_factory, describe_error, load_plugin, running_user_code


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        ":f",
        ".:f",
        "..a:f",
        "json:",
        "json:\0",
        "a\0b:f",
        "json:\udce4",
        "\udce4:f",
        "a..b:f",
        "a." * 9999 + ":f",
    ],
)
def test_a_name_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--option"):
        load_plugin(text, option="--option", remedies=("a", "b"))


def test_a_callable_is_found() -> None:
    assert callable(load_plugin("json:dumps", option="--option", remedies=("a", "b")))


def test_code_keeps_the_directory_that_it_changes_to_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "theirs").mkdir()
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        with running_user_code():
            os.chdir(tmp_path / "theirs")
        assert Path.cwd() == tmp_path
    with running_user_code():
        assert Path.cwd() == tmp_path / "theirs"
        os.chdir(tmp_path)
    with running_user_code():
        assert Path.cwd() == tmp_path


def test_a_directory_that_code_removes_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        with running_user_code():
            (tmp_path / "gone").mkdir()
            os.chdir(tmp_path / "gone")
            (tmp_path / "gone").rmdir()
        assert Path.cwd() == tmp_path


def test_streams_that_code_replaces_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = sys.stdout, sys.stderr
    with running_user_code():
        monkeypatch.setattr(sys, "stdout", None)
        monkeypatch.setattr(sys, "stderr", None)
    assert (sys.stdout, sys.stderr) == before


@pytest.mark.parametrize("kind", [asyncio.CancelledError, GeneratorExit, type("Mine", (BaseException,), {})])
def test_an_exception_of_any_class_is_an_error_with_its_line(kind: type[BaseException]) -> None:
    def factory() -> None:
        raise kind("no")

    with pytest.raises(UsageError, match=rf"--x a:b: .*{kind.__name__}: no \(test_plugin.py, line \d+\)"):
        call_factory(factory, "--x", "a:b", "fix it")


def test_an_interruption_stays_one() -> None:
    with pytest.raises(KeyboardInterrupt), running_user_code():
        raise KeyboardInterrupt
    assert describe_error(KeyboardInterrupt()) == "KeyboardInterrupt"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_process_that_code_forks_ends_where_it_leaves_the_code() -> None:
    with running_user_code():
        child = os.fork()
    assert child
    assert os.waitpid(child, 0)[1] == 0
