"""The application: its commands, and the one handler that turns errors into a line and an exit code."""

from __future__ import annotations

import os
import sys
import warnings

import click

from quantkit._version import __version__
from quantkit.cli import calibrating, looking, statistics_files, tables
from quantkit.cli.console import print_error
from quantkit.errors import QuantkitError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="%(prog)s %(version)s")
def app() -> None:
    """INT8 post-training quantization for TensorRT: one pass over real data, TensorRT's own calibration table, no GPU
    needed."""


for command in (calibrating.calibrate, tables.group, statistics_files.group, looking.inspect, looking.doctor):
    app.add_command(command)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exits with its code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    warnings.filterwarnings("ignore", module="PIL")  # about images that are read all the same
    try:
        app.main(arguments, prog_name="quantkit", standalone_mode=False)
        code = 0
    except QuantkitError as error:
        print_error(error, as_json="--json" in arguments)
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        print("quantkit: interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        # The reader (head, less) went away: nothing is wrong, and nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)
