"""The options --type, --int8 and --fp8: what tensors are quantized to."""

from __future__ import annotations

import click

from quantkit.cli.arguments.groups import Decorator

MEANING = "INT8, or FP8 (E4M3), which needs TensorRT 10 or newer and a GPU of SM89 or newer."
NODES = "NODE|PATTERN|OPERATOR"

quantized_type = click.option(
    "--type",
    metavar="int8|fp8",
    default="int8",
    show_default=True,
    help=f"Type that tensors are quantized to: {MEANING}",
)
project_type = click.option(
    "--type", metavar="int8|fp8", help=f"Type that tensors are quantized to: {MEANING} Default: int8."
)
searched_type = click.option(
    "--type",
    metavar="int8|fp8|mixed",
    default="int8",
    show_default=True,
    help=f"Type that tensors are quantized to: {MEANING} mixed: INT8, FP8 or float for each layer.",
)


def nodes_of_type(word: str) -> Decorator:
    """Return the option --int8 or --fp8. word: the type that it names nodes of."""
    other = {"int8": "fp8", "fp8": "int8"}[word]
    return click.option(
        f"--{word}",
        metavar=NODES,
        multiple=True,
        help=f"Quantize these nodes to {word.upper()}, the others to {other.upper()} (--type {other}). "
        "Can be repeated; @FILE reads one from each line.",
    )
