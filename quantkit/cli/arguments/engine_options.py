"""Options on builds that commands without the other options of engines share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from quantkit.cli.arguments.parsing import NUMBER, WHOLE

level = click.option(
    "--level",
    metavar="0…5",
    type=WHOLE,
    default=3,
    show_default=True,
    help="TensorRT's builder optimization level: how long it searches for fast kernels.",
)


def tune_time(text: str, *, default: float | None = None) -> Callable[..., Any]:
    """Return the option --tune-time. text: what it means here; default: None where a file may name it."""
    return click.option(
        "--tune-time",
        metavar="MINUTES",
        type=NUMBER,
        default=default,
        show_default=default is not None,
        help=f"Minutes for building and timing engines, to find the fastest. {text}",
    )


tuned_folder = click.option(
    "--tuned",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder of quantkit tune, whose choice is built: its model, table and precision.",
)
