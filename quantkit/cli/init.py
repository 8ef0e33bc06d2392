"""TODO docstring."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from quantkit.cli import options
from quantkit.errors import UsageError

if TYPE_CHECKING:
    pass


import click

from quantkit.cli.console import print_json
from quantkit.errors import DataError, ModelError


@click.command()
@click.argument("model", metavar="[MODEL]", type=options.PATH, required=False)
@click.option("--data", metavar="PATH", help="What calibrates. Default: a folder of images here.")
@click.option("--output", "-o", metavar="FILE", type=options.PATH, help="Default: quantkit.toml in this folder.")
@options.force
@options.as_json
def init(model: Path | None, data: str | None, output: Path | None, force: bool, as_json: bool) -> None:
    """Write a quantkit.toml with all options of `run` and what they mean."""
    from quantkit.artifact import refuse_existing, text_bytes, write_whole
    from quantkit.project.settings import FILE, settings_template

    target = output or Path(FILE)
    refuse_existing(target, force=force)
    if model is not None and not model.is_file():
        why = "this is a folder" if model.is_dir() else "there is no such file"
        raise ModelError(f"{model}: {why}", remedy="give the path of an ONNX model")
    if data is not None and ":" not in data and not Path(data).exists():
        raise DataError(f"{data} does not exist", remedy="give images, arrays, or module:callable")
    models = [str(p) for p in sorted(Path().glob("*.onnx"))]
    folders = [p.name for p in sorted(Path().iterdir()) if p.is_dir() and p.name in ("images", "calibration", "train")]
    chosen = str(model or only_candidate(models, "model.onnx")), data or only_candidate(folders, "images")
    write_whole(target, text_bytes(settings_template(*(path_from_folder(text, target.parent) for text in chosen))))
    missing = " and ".join(text for text in chosen if ":" not in text and not Path(text).exists())
    if as_json:
        print_json({"file": str(target)})
    else:
        then = f"{missing} stand there as examples, name yours" if missing else "read it"
        print(f"wrote {target}: {then}, then quantkit run")


def only_candidate(found: list[str], example: str) -> str:
    """What was found, an example where nothing was. UsageError where there are several."""
    if len(found) > 1:
        raise UsageError(f"there are {', '.join(found)}", remedy="quantkit init MODEL --data DATA names the right ones")
    return found[0] if found else example


def path_from_folder(text: str, folder: Path) -> str:
    """A path as seen from the folder of the project's file; `module:callable` and absolute ones as they are."""
    return text if not Path(text).exists() or Path(text).is_absolute() else os.path.relpath(text, folder)
