"""The command line: the only place that prints, exits, shows progress and reads the environment.

Exit codes: 0 done, 1 refused or failed, 2 usage, 3 over budget, 130 interrupted.
"""

from __future__ import annotations

import signal

__all__ = ["invoke", "main"]


def main() -> None:
    """Run the program `quantkit`. Ctrl-C while it is being loaded ends it without a traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from quantkit.cli.application import run_program

    run_program()


def invoke(arguments: list[str]) -> int:
    """Run a command line in this process; return the exit code."""
    from quantkit.cli.application import run_command_line

    return run_command_line(arguments)
