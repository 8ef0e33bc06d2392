"""`quantkit run` and `quantkit init`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantkit.cli import options

if TYPE_CHECKING:
    from quantkit.project.settings import Settings

import sys
from typing import TYPE_CHECKING

import click

from quantkit.cli.console import OVER_BUDGET, note, print_fields, print_json, print_sentence, warn
from quantkit.cli.interruption import raise_if_interrupted

if TYPE_CHECKING:
    from quantkit.project.run import Run

NAMES = {
    "evaluate.max_drop": "--max-drop",
    "calibrate.limit": "--limit",
    "bench.batches": "--batch",
    "bench.streams": "--streams",
}
"""What errors call the keys that flags set and that can be wrong by themselves."""


@click.command()
@click.argument("model", metavar="[MODEL]", type=options.PATH, required=False)
@click.option("--data", metavar="PATH", help="What calibrates: images, arrays, or module:callable.")
@click.option("--val", metavar="PATH", help="What accuracy is measured on. Default: the calibration data.")
@click.option("--labels", metavar="FILE", help="Labels of it. Default: class folders, or the data's own.")
@click.option("--classes", metavar="FILE", help="Class names in the order of the outputs.")
@click.option("--metric", metavar="NAME,NAME…", help="top1, top5, yolo, or module:callable. Default: top1.")
@click.option("--max-drop", metavar="POINTS", type=float, help="Exit code 3 where INT8 loses more than this.")
@options.preprocess
@click.option("--rule", metavar="RULE", help="Of table and Q/DQ model; entropy is TensorRT's own. Default: mse.")
@click.option("--limit", metavar="N", type=int, help="Calibration samples at most. Default: 512.")
@options.skip_corrupt
@click.option("--exclude", metavar="NODE|@FILE", multiple=True, help="Nodes of the Q/DQ model that stay float.")
@click.option("--repair", metavar="NAME,NAME…", help="Of equalize, smooth, round, bias; or none. Default: all.")
@click.option("--precision", metavar="P,P…", help="Engines to build. Default: fp32,tf32,fp16,int8, and of Q/DQ.")
@click.option("--shapes", metavar="INPUT=MIN:OPT:MAX", multiple=True, help="Range of a dynamic input of engines.")
@click.option("--batch", metavar="N,N…", help="Batch sizes that are timed. Default: 1,8,32.")
@click.option("--streams", metavar="N,N…", help="Batches under way at once. Default: 1,2.")
@click.option(
    "--gpu/--no-gpu", default=None, help="Insist on engines, or leave them out. Default: where it is possible."
)
@click.option("--no-layers", is_flag=True, help="Leave the ranking of layers out of the report.")
@click.option("--tensorrt-version", metavar="X.Y.Z", help="TensorRT that table and model are for.")
@click.option(
    "--config", metavar="FILE", type=options.PATH, help="Options of the project. Default: quantkit.toml, if there."
)
@click.option("--output", "-o", metavar="DIR", help="The build directory. Default: MODEL.run beside the model.")
@click.option("--clean", is_flag=True, help="Forget what earlier runs made.")
@options.quiet
@options.as_json
def run(model: Path | None, config: Path | None, clean: bool, quiet: bool, as_json: bool, **settings: Any) -> int:
    """Go the whole way: calibrate, quantize, build where there is a GPU, evaluate, report.

    Steps are reused while nothing that decides about them changed. Options come from quantkit.toml (quantkit init
    writes one); flags override it.
    """
    from quantkit.cli.progress import ProgressBar
    from quantkit.project.run import run as go
    from quantkit.project.run import run_document

    hidden = quiet or as_json or not sys.stderr.isatty()
    made = go(
        run_settings(model, config, settings),
        clean=clean,
        phase=lambda name: announce_step(name, hidden=hidden),
        progress=lambda about: ProgressBar(hidden=hidden, about=about),
    )
    for text in made.warnings:
        warn(text)
    if as_json:
        print_json(run_document(made))
    elif not quiet:
        print_run(made)
    return 0 if made.evaluation.within_budget else OVER_BUDGET


def announce_step(step: str, *, hidden: bool) -> None:
    """A step begins."""
    raise_if_interrupted()
    if not hidden:
        note(f"{step} …")


def split_names(text: str | None) -> tuple[str, ...] | None:
    """`a,b` → names."""
    return None if text is None else tuple(part.strip() for part in text.split(","))


def print_run(made: Run) -> None:
    """Steps, accuracy, and what to take."""
    from quantkit.cli.evaluate import print_model_table

    for text in made.notes:
        if text not in made.warnings:
            note(text)
    print_fields(
        (step.name, "reused: nothing that decides about it changed" if step.reused else f"{step.seconds:.1f} s")
        for step in made.steps
    )
    print()
    print_model_table(made.evaluation)
    print()
    for text in (made.recommendation, *made.evaluation.verdict):
        print_sentence(text)
    for path in made.files.values():
        print(f"file  {path}")
    if not made.evaluation.within_budget:
        warn(f"over the budget of {made.evaluation.max_drop:g}{' points' if made.evaluation.share else ''}")


def run_settings(model: Path | None, config: Path | None, settings: dict[str, Any]) -> Settings:
    """The file's options with the flags on top. UsageError."""
    from quantkit.project.settings import FILE, Settings, override_settings, read_settings

    path = config or Path(FILE)
    base = read_settings(path) if config is not None or path.exists() else Settings()
    repair = settings["repair"]
    flags = {
        "model": None if model is None else str(model),
        "data": settings["data"],
        "preprocess": settings["preprocess"],
        "rule": settings["rule"],
        "output": settings["output"],
        "gpu": settings["gpu"],
        "evaluate.data": settings["val"],
        "evaluate.labels": settings["labels"],
        "evaluate.classes": settings["classes"],
        "evaluate.metrics": split_names(settings["metric"]),
        "evaluate.max_drop": settings["max_drop"],
        "evaluate.layers": False if settings["no_layers"] else None,
        "calibrate.limit": settings["limit"],
        "calibrate.skip_corrupt": settings["skip_corrupt"],
        "evaluate.skip_corrupt": settings["skip_corrupt"],
        "calibrate.tensorrt_version": settings["tensorrt_version"],
        "quantize.exclude": settings["exclude"] or None,
        "quantize.repairs": () if repair == "none" else split_names(repair),
        "build.precisions": split_names(settings["precision"]),
        "build.shapes": settings["shapes"] or None,
        "bench.batches": settings["batch"] and options.parse_counts(settings["batch"], "--batch"),
        "bench.streams": settings["streams"] and options.parse_counts(settings["streams"], "--streams"),
    }
    return override_settings(base, flags, NAMES)
