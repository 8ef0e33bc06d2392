"""The option --type: what tensors are quantized to."""

from __future__ import annotations

import click

quantized_type = click.option(
    "--type",
    metavar="int8|fp8",
    default="int8",
    show_default=True,
    help="Type that tensors are quantized to: INT8, or FP8 (E4M3), which needs TensorRT 10 or newer and a GPU of SM89 "
    "or newer.",
)
