"""`quantkit …` in this process, without the second that a process of its own takes to start.

What depends on the process (signals, closed streams, limits of the system) is tested with `subprocess`.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from quantkit.cli.application import run_command_line


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Work in a folder; modules of the user that are imported meanwhile are forgotten, as when a process ends."""
    before, paths, known = Path.cwd(), [*sys.path], {*sys.modules}
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        sys.path[:] = paths
        for name in {*sys.modules} - known:
            place = getattr(sys.modules[name], "__file__", None) or ""
            if folder in Path(place).absolute().parents:
                del sys.modules[name]


def run_in(folder: Path, line: list[str], printed: TextIO, said: TextIO) -> int:
    """Run a command line in a folder; return the exit code. printed, said: standard output and error."""
    with working_in(folder), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
        return run_command_line(line)


@contextlib.contextmanager
def descriptors_into(file: int) -> Iterator[None]:
    """Have what is written to standard output and error go to an open file, from libraries and workers as well."""
    kept = [(number, os.dup(number)) for number in (1, 2)]
    try:
        for number, _ in kept:
            os.dup2(file, number)
        yield
    finally:
        for number, before in kept:
            os.dup2(before, number)
            os.close(before)


def transcript_in(folder: Path, line: list[str]) -> tuple[str, int]:
    """Run a command line in a folder; return what a terminal would show, in order, and the exit code."""
    with tempfile.TemporaryFile(buffering=0) as file:
        shown = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", write_through=True)
        with descriptors_into(file.fileno()):
            code = run_in(folder, line, shown, shown)
        file.seek(0)
        return file.read().decode(), code
