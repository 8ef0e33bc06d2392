"""Ctrl-C that a library swallows, or turns into another exception."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx.parser
import pytest

from quantkit.cli import application, interruption
from quantkit.cli.terminal.progress import ProgressBar, Spinner
from quantkit.cli.terminal.run_display import RunDisplay
from quantkit.errors import Interrupted, ModelError, QuantkitError

ENDLESS = """<ir_version: 8, opset_import: ["": 17]> net (float[N, 2] x) => (float[N, 2] y) {
    most = Constant<value = int64 {9223372036854775807}>()  bound = Constant<value = float {100.0}>()
    top = ReduceMax<keepdims = 0>(x)  go = Greater(top, bound)
    y = Loop(most, go, x) <body = inside (int64 i, bool k, float[N, 2] a) => (bool l, float[N, 2] b) {
        l = Identity(k)  b = Abs(a) }> }"""


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = [(number, signal.getsignal(number)) for number in interruption.SIGNALS]
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
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
        lambda: RunDisplay(silent=True).begin("report"),
        lambda: RunDisplay(silent=True).phases("round"),
    ],
    ids=["bar", "spinner", "step", "phase"],
)
def test_after_a_swallowed_one_the_next_phase_does_not_begin(work: Callable[[], None]) -> None:
    work()
    swallowed()
    with pytest.raises(KeyboardInterrupt):
        work()


def test_other_errors_of_the_system_are_no_matter_of_what_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(error: OSError) -> None:
        raise error

    with pytest.raises(OSError, match="no connection"):
        run(monkeypatch, lambda: work(OSError(errno.ENOTCONN, "no connection")))
    assert run(monkeypatch, lambda: work(OSError(errno.ENOSPC, "full", "a file"))) == 1
    assert "a file" in capsys.readouterr().err


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


@pytest.mark.slow
@pytest.mark.parametrize(("endless", "signals"), [(0, 1), (1, 1), (1, 2)], ids=["first", "later", "pressed twice"])
def test_a_network_without_end_is_interrupted(endless: int, signals: int, tmp_path: Path) -> None:
    """endless: the batch that makes the Loop of the network endless; the first one is run before the progress bar."""
    proto = onnx.parser.parse_model(ENDLESS)
    (tmp_path / "net.onnx").write_bytes(proto.SerializeToString())
    x = np.ones((300, 2), np.float32)
    x[-1 if endless else 0] = 1000
    np.save(tmp_path / "x.npy", x)
    script = (
        "import os, signal, sys, threading, time\n"
        "from quantkit.backends import runs_in_progress\n"
        "from quantkit.cli.application import run_program\n"
        "runs, begin, count = runs_in_progress.RUNS, runs_in_progress.RUNS.begin, 0\n"
        f"runs_in_progress.LEAST_PATIENCE = {0.3 if signals == 1 else 1000}\n"
        "def press():\n"
        f"    for _ in range({signals}):\n"
        "        time.sleep(0.3)\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "def watched(flag):\n"
        "    global count\n"
        "    begin(flag)\n"
        "    time.sleep(0.01)\n"
        "    count += 1\n"
        "    if count == 1:\n"
        "        threading.Thread(target=press, daemon=True).start()\n"
        "runs.begin = watched\n"
        "run_program()\n"
    )
    line = [sys.executable, "-c", script, "calibrate", "net.onnx", "--data", "x.npy"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 130, done.stderr
    assert done.stderr.endswith("quantkit: interrupted\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx", "x.npy"]
