"""Exclusion files: the worst layers of a network, one node per line, for `--exclude @FILE` of quantize and build."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from quantkit._version import __version__
from quantkit.artifact import check_destinations, text_bytes, write_whole
from quantkit.document import read_text_file
from quantkit.errors import OutputError, UsageError
from quantkit.numerics import format_db
from quantkit.sensitivity.result import LayerError, Sensitivity
from quantkit.view import escape_controls

OPTION = "--exclude-file"
MOST = 16 << 20
"""Maximum size of an exclusion file, in bytes."""


def write_exclusions(found: Sensitivity, path: str | os.PathLike[str], *, force: bool = False) -> Path:
    """Write the layers that should stay float (`found.kept`). StaleError if the file exists, OutputError."""
    target = Path(path)
    check_destinations([target], force=force, option=OPTION)
    write_whole(target, text_bytes(format_exclusions(found)), OPTION, force=force)
    return target


def format_exclusions(found: Sensitivity) -> str:
    """Return the file: comments on its origin, then one line per node. OutputError if a name does not fit."""
    layers = {layer.node: layer for layer in found.layers}
    lines = [
        f"# nodes that stay float: the {len(found.kept)} worst of {len(found.ranked)} quantized layers",
        f"# written by quantkit {__version__} layers for {Path(found.model).name}, quantized with {found.source}",
        f"# outputs: {format_db(found.all_db)} with all layers quantized, {format_db(found.kept_db)} with these in "
        f"float, over {found.samples} samples",
    ]
    lines += [f"{check_node_name(node)}  # {exclusion_reason(layers[node])}" for node in found.kept]
    return "".join(f"{escape_controls(line)}\n" for line in lines)


def exclusion_reason(layer: LayerError) -> str:
    """Return why a layer is in the file: `Conv, alone 21.3 dB, 62.0% of the noise`."""
    text = f"{layer.title}, alone {format_db(layer.alone_db)}, {layer.share:.1%} of the noise"
    return f"{text}, a better scale would gain {format_db(layer.misfit_db)}" if layer.misfit else text


def check_node_name(node: str) -> str:
    """Return the node's name. OutputError if a line of the file cannot hold it."""
    if "#" in node or node.startswith("@") or node != node.strip() or not node.isprintable():
        raise OutputError(
            f"the node name {node!r} cannot be written to an exclusion file",
            remedy="exclude it with --exclude, or rename it",
        )
    return node


def expand_name_files(texts: Sequence[str]) -> tuple[str, ...]:
    """Replace each `@FILE` by the lines of that file, where `#` starts a comment. UsageError."""
    found: list[str] = []
    for text in texts:
        if not text.startswith("@"):
            found.append(text)
            continue
        lines = read_text_file(text[1:], UsageError, "give a text file with one name per line", MOST).splitlines()
        found += [name for line in lines if (name := line.partition("#")[0].strip())]
    return tuple(found)
