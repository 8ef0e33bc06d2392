"""Options that several commands share, so that they are the same everywhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from quantkit.errors import UsageError

if TYPE_CHECKING:
    from quantkit.histogram import HistogramMode
    from quantkit.table import Algorithm

PATH = click.Path(path_type=Path)

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
min_coverage = click.option(
    "--min-coverage",
    metavar="SHARE",
    type=float,
    default=0.9,
    show_default=True,
    help="Share of the network's float tensors that need a scale, 0 … 1.",
)
shapes = click.option(
    "--shapes",
    metavar="INPUT=MIN:OPT:MAX",
    multiple=True,
    help="Range of a dynamic input: batches (image=1:8:32) or whole shapes. Default: batches 1:32:32.",
)
level = click.option(
    "--level",
    metavar="0…5",
    type=int,
    default=3,
    show_default=True,
    help="TensorRT's builder optimization level: how long it looks for fast kernels.",
)
device = click.option("--device", metavar="N", type=int, default=0, show_default=True, help="Number of the GPU.")
preprocess = click.option(
    "--preprocess",
    metavar="PRESET|FILE.toml",
    help="imagenet, imagenet-caffe, cifar10, yolo, unit, raw, or a TOML file. Default: preprocess.toml beside the "
    "model, else its metadata, else unit with a warning; arrays: raw.",
)
skip_corrupt = click.option(
    "--skip-corrupt", is_flag=True, default=None, help="Leave out images that cannot be read, and count them."
)
quiet = click.option("--quiet", "-q", is_flag=True, help="No progress, no summary; warnings stay.")
provider = click.option(
    "--provider", metavar="cpu|cuda", default="cpu", show_default=True, help="onnxruntime's execution provider."
)
stats = click.option(
    "--stats",
    metavar="PATH",
    type=PATH,
    help="Statistics. Default: MODEL.stats.safetensors beside the model, else the table MODEL.calib.",
)
table = click.argument("table", metavar="TABLE", type=PATH)


def parse_counts(text: str, option: str) -> tuple[int, ...]:
    """`1,8,32` → numbers. UsageError."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{option} {text!r} is no list of numbers", remedy=f"for example {option} 1,8,32") from None


def parse_switches(text: str) -> tuple[bool, ...]:
    """`on`, `off` or `both`. UsageError."""
    known = {"on": (True,), "off": (False,), "both": (False, True)}
    if text not in known:
        raise UsageError(f"--graphs {text!r}", remedy=f"one of {', '.join(known)}")
    return known[text]


def parse_size(text: str) -> int:
    """`512M`, `2G`, `1048576` → bytes. UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match or float(match[1]) <= 0:
        raise UsageError(f"{text!r} is not a size", remedy="for example 512M or 2G")
    return int(float(match[1]) * 1024 ** "_KMGT".index(match[2].upper() or "_"))


def parse_histogram(text: str) -> HistogramMode:
    """`tensorrt` or `invariant`. UsageError."""
    from quantkit.histogram import HistogramMode

    try:
        return HistogramMode(text)
    except ValueError:
        raise UsageError(f"unknown histogram {text!r}", remedy="one of tensorrt, invariant") from None


def parse_algorithm(text: str | None) -> Algorithm | None:
    """An algorithm by TensorRT's name. UsageError."""
    from quantkit.table import Algorithm

    try:
        return None if text is None else Algorithm(text)
    except ValueError:
        known = ", ".join(a.value for a in Algorithm)
        raise UsageError(f"unknown algorithm {text!r}", remedy=f"one of {known}") from None
