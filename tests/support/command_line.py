"""`quantkit …` in this process, without the second that a process of its own takes to start.

What depends on the process (signals, closed streams, limits of the system) is tested with `subprocess`.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

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


def run_in(folder: Path, line: list[str], printed: io.StringIO, said: io.StringIO) -> int:
    """Run a command line in a folder; return the exit code. printed, said: standard output and error."""
    with working_in(folder), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
        return run_command_line(line)
