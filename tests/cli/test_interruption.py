"""Ctrl-C that a library swallows, or turns into another exception."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click
import pytest

from quantkit.cli import application, interruption
from quantkit.cli.run import announce_step
from quantkit.cli.terminal.progress import ProgressBar, Spinner
from quantkit.errors import Interrupted, ModelError, QuantkitError


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    interruption.INTERRUPTED.clear()
    for number, handler in before:
        signal.signal(number, handler)


def run(monkeypatch: pytest.MonkeyPatch, work: Callable[[], Any]) -> int:
    monkeypatch.setattr(application.app, "main", lambda *_, **__: work())
    return application.run_command_line([])


def swallowed(number: int = signal.SIGTERM) -> None:
    interruption.install_handlers()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("error", [ImportError("initialization failed"), ModelError("cannot be run", remedy="fix it")])
def test_what_comes_of_an_interruption_is_an_interruption(
    number: int, error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        swallowed(number)
        raise error

    assert run(monkeypatch, work) == 130
    assert capsys.readouterr().err == "quantkit: interrupted\n"


def test_without_one_errors_are_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(error: Exception) -> None:
        raise error

    with pytest.raises(ImportError):
        run(monkeypatch, lambda: work(ImportError("initialization failed")))
    assert run(monkeypatch, lambda: work(QuantkitError("wrong", remedy="fix it"))) == 1


def test_an_interruption_that_says_more_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        swallowed()
        raise Interrupted("stopped after 3 batches", remedy="start again")

    assert run(monkeypatch, work) == 130
    assert "stopped after 3 batches" in capsys.readouterr().err


@pytest.mark.parametrize(
    "work",
    [
        lambda: ProgressBar(hidden=True).start(8, 1, 0),
        lambda: Spinner(hidden=True).phase("layers"),
        lambda: announce_step("report", hidden=True),
    ],
    ids=["bar", "spinner", "step"],
)
def test_after_a_swallowed_one_the_next_phase_does_not_begin(work: Callable[[], None]) -> None:
    work()
    swallowed()
    with pytest.raises(KeyboardInterrupt):
        work()


def test_other_errors_of_the_system_are_no_matter_of_what_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(error: OSError) -> None:
        raise error

    for error in (OSError(errno.ENOSPC, "full", "a file"), OSError(errno.ENOTCONN, "no connection")):
        with pytest.raises(OSError, match=error.strerror):
            run(monkeypatch, lambda error=error: work(error))


@pytest.mark.parametrize("when", ["listen", "run"])
def test_an_interruption_around_the_command_is_no_traceback(when: str) -> None:
    script = (
        "import signal, sys\n"
        "from quantkit.cli import application, interruption\n"
        f"before = {when!r} == 'listen'\n"
        "listen, begin = interruption.install_handlers, application.run_command_line\n"
        "def ask():\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "interruption.install_handlers = lambda: (listen(), ask() if before else None)\n"
        "application.run_command_line = lambda arguments: (begin(arguments), None if before else ask())[0]\n"
        "application.run_program()\n"
    )
    done = subprocess.run([sys.executable, "-c", script, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "quantkit: interrupted\n")


@pytest.mark.parametrize(("code", "expected"), [(5, 5), (0, 0), (None, 1), ("words", 1)])
def test_leaving_with_a_code_is_not_success(code: Any, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> None:
        raise SystemExit(code)

    assert run(monkeypatch, work) == expected


@click.command()
def unread() -> None:
    raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_a_reader_that_went_away_is_nothing_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, getattr(sys, name))  # click replaces both
    monkeypatch.setitem(application.app.commands, "unread", unread)
    assert application.run_command_line(["unread"]) == 0


def test_while_the_program_is_loaded_there_is_no_traceback() -> None:
    script = (
        "import os, signal, sys\n"
        "class Slow:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'quantkit.cli.application':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Slow())\n"
        "from quantkit.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script, "doctor"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
