"""The command line: the only place that prints, exits, shows progress and reads the environment.

Exit codes: 0 done, 1 refused or failed, 2 usage, 3 over budget, 130 interrupted.
"""

from __future__ import annotations

import os
import signal

__all__ = ["invoke", "main"]


def main() -> None:
    """Run the program `quantkit`. Ctrl-C while it is being loaded ends it without a traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Read by OpenBLAS as it is loaded: its threads sleep after a product, instead of spinning for 20 ms beside our own.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
    from quantkit.cli.application import run_program

    run_program()


def invoke(arguments: list[str]) -> int:
    """Run a command line in this process; return the exit code."""
    from quantkit.cli.application import run_command_line

    return run_command_line(arguments)
