"""The application: its commands, and the one handler that turns errors into a line and an exit code."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from quantkit._version import __version__
from quantkit.cli import calibrating, looking, statistics_files, tables
from quantkit.cli.console import print_error

app = typer.Typer(
    name="quantkit",
    help="INT8 post-training quantization for TensorRT: one pass over real data, TensorRT's own calibration table, "
    "no GPU needed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def show_version(wanted: bool) -> None:
    """`--version`."""
    if wanted:
        print(f"quantkit {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Options of the program itself."""


calibrating.register(app)
looking.register(app)
app.add_typer(tables.app, name="table")
app.add_typer(statistics_files.app, name="stats")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exits with its code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in arguments
    from quantkit.errors import QuantkitError

    try:
        app(args=arguments, prog_name="quantkit")
    except QuantkitError as error:
        print_error(error, as_json=as_json)
        code = error.exit_code
    except KeyboardInterrupt:
        print("quantkit: interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        # The reader (head, less) went away: nothing is wrong, and nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    else:
        code = 0
    sys.exit(code)
