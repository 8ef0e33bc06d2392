"""A pseudo-terminal in which `quantkit` runs, and the screen that its user sees."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
from collections.abc import Callable, Sequence
from pathlib import Path

ESCAPE = re.compile(r"\x1b\[([0-9;]*)([A-Za-z])")


class Screen:
    """The lines of a terminal that knows what progress displays need: up, erase below, erase the line, colours."""

    def __init__(self) -> None:
        self.lines = [""]
        self._row = self._column = 0

    def feed(self, text: str) -> None:
        """Show text."""
        place = 0
        while place < len(text):
            if found := ESCAPE.match(text, place):
                self._command(found[1], found[2])
                place = found.end()
                continue
            self._put(text[place])
            place += 1

    def _command(self, number: str, letter: str) -> None:
        if letter == "A":
            self._row = max(0, self._row - int(number or 1))
        elif letter in "JK":
            self.lines[self._row] = self.lines[self._row][: self._column]
            if letter == "J":
                del self.lines[self._row + 1 :]
        else:
            assert letter == "m", f"unknown command {letter}"

    def _put(self, character: str) -> None:
        if character == "\r":
            self._column = 0
        elif character == "\n":
            self._row += 1
            self.lines += [""] * (self._row + 1 - len(self.lines))
        else:
            line = self.lines[self._row].ljust(self._column)
            self.lines[self._row] = line[: self._column] + character + line[self._column + 1 :]
            self._column += 1


def record(
    arguments: Sequence[str],
    folder: Path,
    *,
    columns: int,
    lines: int,
    react: Callable[[Screen, int], bool] = lambda _, __: False,
    **variables: str,
) -> tuple[int, list[list[str]], list[str]]:
    """Run `quantkit` on a terminal; return its exit code, what the screen showed after each write, and shows at last.

    react: called with the screen and the process until it returns True.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        plain = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
        os.chdir(folder)
        command = [sys.executable, "-m", "quantkit", *arguments]
        os.execve(sys.executable, command, {**plain, "TERM": "xterm-256color", **variables})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    screen, frames, rest, waiting = Screen(), list[list[str]](), b"", True
    while select.select([terminal], [], [], 120)[0]:
        try:
            read = os.read(terminal, 1 << 16)
        except OSError:  # the process has left
            break
        text = (rest + read).decode(errors="ignore")
        rest = b""
        screen.feed(text)
        frames.append([line.rstrip() for line in screen.lines])
        waiting = waiting and not react(screen, pid)
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), frames, [line.rstrip() for line in screen.lines if line.strip()]
