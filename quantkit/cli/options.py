"""Options that several commands share, so that they are the same everywhere."""

from __future__ import annotations

import re
from pathlib import Path

import click

from quantkit.errors import UsageError

a_path = click.Path(path_type=Path)

as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
force = click.option("--force", is_flag=True, help="Replace what is there.")
tensorrt_version = click.option(
    "--tensorrt-version",
    metavar="X.Y.Z",
    help="TensorRT that the table is for. Default: the installed library's version, else 10.3.0. TensorRT ignores "
    "tables of other versions.",
)
algorithm = click.option(
    "--algorithm",
    metavar="NAME",
    help="Header's algorithm: EntropyCalibration2, MinMaxCalibration, EntropyCalibration or LegacyCalibration. "
    "Default: that of the rule.",
)
rule = click.option(
    "--rule",
    metavar="RULE[,RULE…]",
    default="entropy",
    show_default=True,
    help="entropy, minmax, mse, percentile:99.99; several make several tables from the same pass.",
)
table = click.argument("table", metavar="TABLE", type=a_path)


def byte_count(text: str) -> int:
    """`512M`, `2G`, `1048576` → bytes. UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match or float(match[1]) <= 0:
        raise UsageError(f"{text!r} is not a size", remedy="for example 512M or 2G")
    return int(float(match[1]) * 1024 ** "_KMGT".index(match[2].upper() or "_"))
