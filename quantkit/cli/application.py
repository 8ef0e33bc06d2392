"""The application: its commands, and the one handler that turns errors into a line and an exit code."""

from __future__ import annotations

import contextlib
import errno
import gc
import io
import os
import re
import sys
import warnings
from collections.abc import Mapping, Sequence

import click

from quantkit._version import __version__
from quantkit.cli import (
    bench,
    build,
    calibrate,
    compare,
    doctor,
    evaluate,
    export,
    from_framework,
    init,
    inspect,
    interruption,
    layers,
    lint,
    profile,
    quantize,
    run,
    stats,
    table,
    tune,
)
from quantkit.cli import (
    compile as compile_module,
)
from quantkit.cli import map as drawing
from quantkit.cli.arguments.verb import VerbGroup
from quantkit.cli.terminal.console import print_error, print_to_stderr, print_usage_error
from quantkit.cli.terminal.documents import asks_for_document, documents_only, reserve_standard_output
from quantkit.errors import Interrupted, OutputError, QuantkitError, UsageError
from quantkit.paths import path_failure
from quantkit.view import quoted

EMPTY = re.compile("--?[a-z-]+=")
"""An option whose value is empty."""


HEADINGS: Mapping[str, Sequence[click.Command]] = {
    "Start here": (run.run, init.init),
    "Calibrate and quantize": (calibrate.calibrate, quantize.quantize, lint.lint, table.table_group, stats.stats_group),
    "Measure and improve": (evaluate.evaluate, compare.compare, layers.layers, tune.tune),
    "Build and deploy": (
        compile_module.compile_command,
        build.build,
        bench.bench,
        profile.profile,
        export.export_group,
    ),
    "Import models": (from_framework.from_torch, from_framework.from_tf, from_framework.from_tflite),
    "Look around": (inspect.inspect, drawing.draw_map, doctor.doctor),
}
"""The commands by what one wants to do. A new command is one entry."""


@click.group(
    cls=VerbGroup,
    headings={title: [command.name or "" for command in below] for title, below in HEADINGS.items()},
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def app() -> None:
    """INT8 post-training quantization for TensorRT: one pass over real data writes calibration tables, also
    TensorRT's own; no GPU is needed."""


for below in HEADINGS.values():
    for command in below:
        app.add_command(command)


LESS_MEMORY = "read smaller batches (--batch-size), or with fewer threads (--threads)"


def run_program() -> None:
    """Run the program `quantkit`, and leave the process at once.

    Unloading libraries in order takes longer than a short command; everything is written by then.
    """
    gc.set_threshold(100_000)  # libraries make many objects while they are loaded, and hardly any garbage
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (for as long as the process lives)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without "×" gets its number
    try:
        interruption.install_handlers()
        interruption.watch_signals()
        if asks_for_document(sys.argv[1:]):
            reserve_standard_output()
        code = run_command_line(sys.argv[1:])
        if not sys.stdout.closed:  # by code of the user
            sys.stdout.flush()
    except KeyboardInterrupt:
        code = report_interruption()
    except OSError as error:
        if not is_stream_error(error):
            raise
        code = report_unwritable(error)
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    os._exit(code)


def run_command_line(arguments: list[str]) -> int:
    """Run a command line; return the exit code."""
    warnings.filterwarnings("ignore", module="PIL")  # warns about images that can be read
    with documents_only(arguments):
        return run_command(arguments)


def run_command(arguments: list[str]) -> int:
    """Run a command line, and turn every error into a line and an exit code."""
    stdout = sys.stdout
    try:
        refuse_empty(arguments)
        code = app.main(arguments, prog_name="quantkit", standalone_mode=False)
        sys.stdout.flush()
    except QuantkitError as error:
        if interruption.is_interrupted() and not isinstance(error, Interrupted):
            return report_interruption()
        print_error(error, as_json="--json" in arguments)
        return error.exit_code
    except click.ClickException as error:
        print_usage_error(error, as_json="--json" in arguments)
        return error.exit_code
    except SystemExit as left:
        if sys.stdout is not stdout:
            return 0  # click leaves like this after a broken pipe (head, less), with another stream in place
        return left.code if isinstance(left.code, int) else 1
    except (KeyboardInterrupt, click.Abort):
        return report_interruption()
    except BrokenPipeError:
        # The reader (head, less) has closed the pipe: no error, and nothing more can be printed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError:
        failure = QuantkitError("memory does not suffice", remedy=LESS_MEMORY)
        print_error(failure, as_json="--json" in arguments)
        return failure.exit_code
    except Exception as error:
        if interruption.is_interrupted():
            return report_interruption()
        if isinstance(error, OSError) and is_stream_error(error):
            return report_unwritable(error)
        from quantkit.plugin import working_directory

        if isinstance(error, OSError) and (error.filename is not None or not working_directory()):
            refused = lost_directory() if error.filename is None else path_failure(error.filename, error)
            print_error(refused, as_json="--json" in arguments)
            return refused.exit_code
        raise
    return code if isinstance(code, int) else 0


def refuse_empty(arguments: list[str]) -> None:
    """Raise UsageError for arguments without a value, or with a NUL, which no name contains."""
    for before, argument in zip(["quantkit", *arguments], arguments, strict=False):
        if not argument or EMPTY.fullmatch(argument):
            what = argument.rstrip("=") or f"the argument after {quoted(before)}"
            raise UsageError(
                f"{what} is empty", remedy="give a value, or leave it out; a variable of the shell may be unset"
            )
        if "\0" in argument:
            raise UsageError(f"{quoted(argument)} contains a NUL", remedy="leave it out")


def lost_directory() -> QuantkitError:
    """Return the error for a working directory that was removed while a command works in it."""
    return QuantkitError("the working directory was removed", remedy="change to a folder that exists: cd")


def is_stream_error(error: OSError) -> bool:
    """Return True if standard output could not be written: the error names no file."""
    return error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def report_unwritable(error: OSError) -> int:
    """Print that standard output cannot be written, and redirect it to nowhere; return the exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    failure = OutputError(
        f"cannot write to standard output: {error.strerror or error}",
        remedy="free some space, or redirect the output; the requested files have been written",
    )
    with contextlib.suppress(OSError):
        print_error(failure, as_json=False)
    return failure.exit_code


def report_interruption() -> int:
    """Print that the command was interrupted; return the exit code."""
    print_to_stderr("quantkit: interrupted")
    return 130
