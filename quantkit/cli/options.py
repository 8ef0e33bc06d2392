"""Options that several commands share, so that they are the same everywhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from quantkit.errors import UsageError

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
TensorRTVersion = Annotated[
    str | None,
    typer.Option(
        "--tensorrt-version",
        metavar="X.Y.Z",
        help="TensorRT that the table is for. Default: the installed library's version, else 10.3.0. TensorRT ignores "
        "tables of other versions.",
    ),
]
AlgorithmName = Annotated[
    str | None,
    typer.Option(
        "--algorithm",
        metavar="NAME",
        help="Header's algorithm: EntropyCalibration2, MinMaxCalibration, EntropyCalibration or LegacyCalibration. "
        "Default: that of the rule.",
    ),
]
Rules = Annotated[
    str,
    typer.Option(
        "--rule",
        metavar="RULE[,RULE…]",
        help="entropy, minmax, mse, percentile:99.99; several make several tables from the same pass.",
    ),
]
TablePath = Annotated[Path, typer.Argument(metavar="TABLE", help="A calibration table.")]


def byte_count(text: str) -> int:
    """`512M`, `2G`, `1048576` → bytes. UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match or float(match[1]) <= 0:
        raise UsageError(f"{text!r} is not a size", remedy="for example 512M or 2G")
    return int(float(match[1]) * 1024 ** "_KMGT".index(match[2].upper() or "_"))
