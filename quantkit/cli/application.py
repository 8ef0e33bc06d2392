"""The application: its commands, and the one handler that turns errors into a line and an exit code."""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
import warnings
from typing import Any

import click

from quantkit._version import __version__
from quantkit.cli import (
    benching,
    building,
    calibrating,
    evaluating,
    exporting,
    importing,
    layering,
    linting,
    looking,
    quantizing,
    running,
    statistics_files,
    tables,
    tuning,
)
from quantkit.cli.console import print_error, print_json
from quantkit.errors import QuantkitError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="%(prog)s %(version)s")
def app() -> None:
    """INT8 post-training quantization for TensorRT: one pass over real data, TensorRT's own calibration table, no GPU
    needed."""


for command in (
    running.run,
    running.init,
    calibrating.calibrate,
    building.build,
    benching.bench,
    quantizing.quantize,
    linting.lint,
    evaluating.evaluate,
    evaluating.compare,
    layering.layers,
    tuning.tune,
    exporting.group,
    importing.from_torch,
    importing.from_tf,
    importing.from_tflite,
    tables.group,
    statistics_files.group,
    looking.inspect,
    looking.doctor,
):
    app.add_command(command)


def main() -> None:
    """The program `quantkit`: run the command line, and leave the process at once.

    Taking libraries down in good order takes longer than a short command; everything is written by then.
    """
    gc.set_threshold(100_000)  # libraries make many objects while they are loaded, and hardly any garbage
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that has no "×" gets its number
    signal.signal(signal.SIGTERM, interrupted)
    code = run(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def interrupted(number: int, frame: Any) -> None:
    """SIGTERM ends a command as Ctrl-C does, so that temporary files go."""
    del number, frame
    raise KeyboardInterrupt


def run(arguments: list[str]) -> int:
    """Run the command line; returns the exit code."""
    warnings.filterwarnings("ignore", module="PIL")  # about images that are read all the same
    try:
        code = app.main(arguments, prog_name="quantkit", standalone_mode=False)
        sys.stdout.flush()
    except QuantkitError as error:
        print_error(error, as_json="--json" in arguments)
        return error.exit_code
    except click.ClickException as error:
        if "--json" in arguments:
            print_json({"error": {"kind": "UsageError", "problem": error.format_message(), "remedy": "see --help"}})
        error.show()
        return error.exit_code
    except SystemExit:
        return 0  # click's answer to a reader (head, less) that went away
    except (KeyboardInterrupt, click.Abort):
        print("quantkit: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (head, less) went away: nothing is wrong, and nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code if isinstance(code, int) else 0
