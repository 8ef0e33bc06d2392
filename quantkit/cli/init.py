"""The command `quantkit init`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from quantkit.cli import options
from quantkit.cli.arguments.verb import verb
from quantkit.cli.terminal.console import Printing, print_line
from quantkit.errors import DataError, ModelError, UsageError
from quantkit.paths import exists, is_file, is_folder


@verb(
    "Write quantkit.toml, the options of `quantkit run`",
    "quantkit init",
    "quantkit init model.onnx --data images/train",
)
@click.argument("model", metavar="[MODEL]", type=options.PATH, required=False)
@options.data("a folder of images in this folder")
@click.option(
    "--output",
    "-o",
    metavar="FILE",
    type=options.PATH,
    help="Project file to write. Default: quantkit.toml in this folder.",
)
@options.force
@options.printing_loudly
def init(model: Path | None, data: str | None, output: Path | None, force: bool, printing: Printing) -> None:
    """Write a quantkit.toml with all options of `quantkit run` and their meaning.

    The model and the calibration data default to the only ones in this folder.
    """
    from quantkit.artifact import check_destinations, text_bytes, write_whole
    from quantkit.project.settings import FILE, settings_template

    target = output or Path(FILE)
    check_destinations([target], read=[model, data], force=force)
    if model is not None and not is_file(model):
        why = "this is a folder" if is_folder(model) else "there is no such file"
        raise ModelError(f"{model}: {why}", remedy="give the path of an ONNX model")
    if data is not None and ":" not in data and not exists(data):
        raise DataError(f"{data} does not exist", remedy="give images, arrays, or module:callable")
    models = [str(p) for p in sorted(Path().glob("*.onnx"))]
    known = ("images", "calibration", "train")
    folders = [p.name for p in sorted(Path().iterdir()) if p.name in known and is_folder(p)]
    named = str(model or only_candidate(models, "model.onnx")), data or only_candidate(folders, "images")
    settings = settings_template(*(path_from_folder(text, target.parent) for text in named))
    write_whole(target, text_bytes(settings), force=force)
    missing = [text for text in named if ":" not in text and not exists(text)]
    printing.print_result(target, lambda path: {"file": str(path)}, lambda path: print_next_step(path, missing))


def print_next_step(target: Path, missing: list[str]) -> None:
    """Print what was written, and what to do with it."""
    then = f"replace the placeholder{'s'[: len(missing) - 1]} {' and '.join(missing)}" if missing else "read it"
    print_line(f"wrote {target}: {then}, then run `quantkit run`")


def only_candidate(names: list[str], placeholder: str) -> str:
    """Return the only name, or the placeholder if there is none. UsageError if there are several."""
    if len(names) > 1:
        raise UsageError(f"this folder has {', '.join(names)}", remedy="name one: quantkit init MODEL --data DATA")
    return names[0] if names else placeholder


def path_from_folder(text: str, folder: Path) -> str:
    """Return a path as seen from the project file's folder; `module:callable` and absolute paths stay as they are."""
    return text if not exists(text) or Path(text).is_absolute() else os.path.relpath(text, folder)
