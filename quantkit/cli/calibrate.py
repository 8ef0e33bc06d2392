"""`quantkit calibrate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantkit.cli import options
from quantkit.cli.console import note, print_fields, print_json, print_rows, warn

if TYPE_CHECKING:
    from quantkit.calibration.options import CalibrateOptions
    from quantkit.calibration.result import Calibration

SHOWN = 8


@click.command()
@click.argument("model", metavar="MODEL", type=options.PATH)
@click.option(
    "--data",
    metavar="PATH",
    required=True,
    help="Folder of images, .npy or .npz file, folder of .npz batches, or module:callable.",
)
@options.rule
@click.option(
    "--output", "-o", metavar="PATH", type=options.PATH, help="The table. Default: beside the model, MODEL.calib."
)
@options.preprocess
@click.option(
    "--limit", metavar="N", type=int, help="Images at most, spread evenly over the sorted list. Default: 512."
)
@click.option("--shuffle", is_flag=True, help="Shuffle the images.")
@click.option("--seed", metavar="N", type=int, default=0, show_default=True, help="Seed of --shuffle.")
@click.option(
    "--batch-size", metavar="N", type=int, help="Images a batch. Default: the model's where it is fixed, else 32."
)
@options.skip_corrupt
@click.option("--workers", metavar="N", type=int, help="Threads that decode and run. Default: one a core, 8 at most.")
@click.option(
    "--backend",
    metavar="auto|onnxruntime|tensorrt",
    default="auto",
    show_default=True,
    envvar="QUANTKIT_BACKEND",
    help="What runs the network; auto: TensorRT 8.6 … 10.x where it and a GPU are there and can do what is asked for. "
    "The variable QUANTKIT_BACKEND sets it too.",
)
@options.provider
@click.option(
    "--histogram",
    metavar="tensorrt|invariant",
    default="tensorrt",
    show_default=True,
    help="tensorrt: ranges as TensorRT settles them. invariant: independent of order; can be merged.",
)
@click.option("--max-memory", metavar="SIZE", default="1G", show_default=True, help="Activations held at once.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run.")
@click.option(
    "--checkpoint-every", metavar="N", type=int, default=16, show_default=True, help="Batches between checkpoints."
)
@click.option("--learning-curve", is_flag=True, help="Show how thresholds settle with the number of images.")
@options.tensorrt_version
@options.algorithm
@options.force
@options.quiet
@options.as_json
def calibrate(
    model: Path,
    data: str,
    rule: str,
    output: Path | None,
    preprocess: str | None,
    quiet: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Calibrate MODEL on real data: statistics, and a calibration table for TensorRT.

    Writes MODEL.calib, its provenance MODEL.calib.json and MODEL.stats.safetensors. A second run with the same model,
    data and options reuses them.
    """
    from quantkit.calibration.calibrate import calibrate as run
    from quantkit.cli.progress import ProgressBar

    result = run(
        model,
        data,
        rules=rule,
        preprocess=preprocess,
        output=output or (model.with_suffix(".calib") if model.name else model),
        options=calibrate_options(settings),
        progress=ProgressBar(hidden=quiet or as_json or not sys.stderr.isatty()),
    )
    for text in result.warnings:
        warn(text)
    if as_json:
        print_json(calibrate_document(result))
    elif not quiet:
        print_calibration(result)


def calibrate_options(settings: dict[str, Any]) -> CalibrateOptions:
    """The options as values. UsageError where a name is unknown."""
    from quantkit.calibration.options import CalibrateOptions
    from quantkit.cli.options import parse_algorithm, parse_histogram
    from quantkit.data import DataOptions

    names = {"limit", "shuffle", "seed", "batch_size", "skip_corrupt", "workers"}
    about_data = {name: settings[name] for name in names if settings[name] is not None}
    rest = {name: value for name, value in settings.items() if name not in names}
    return CalibrateOptions(
        data=DataOptions(**about_data),
        **rest
        | {
            "histogram": parse_histogram(settings["histogram"]),
            "algorithm": parse_algorithm(settings["algorithm"]),
            "max_memory": options.parse_size(settings["max_memory"]),
        },
    )


def print_calibration(result: Calibration) -> None:
    """What was done, for people."""
    for text in result.notes:
        note(text)
    covered = sum(scale > 0 for scale in result.table.scales.values())
    applied = result.preprocess.applied
    spec = f"{applied.describe() if applied else 'none'} ({result.preprocess.source})"
    time = "nothing was decoded"
    if result.decoded:
        time = f"{result.seconds:.1f} s, {result.samples / max(result.seconds, 1e-9):,.0f} images/s"
    batches = f"{result.samples:,} images in {result.batches:,} batches"
    fields = [
        ("input", "; ".join(result.inputs)),
        ("preprocess", spec),
        (
            "data",
            batches + (f", {len(result.skipped)} unreadable left out" if result.skipped else ""),
        ),
        ("tensors", f"{covered} of {len(result.table) + len(result.missing)} float tensors have a scale"),
        ("TensorRT", f"{result.target} ({result.target_source})"),
        ("time", time),
    ]
    print_fields(fields)
    for reason in result.unwatched.values():
        warn(f"not watched: {reason}")
    for name in result.missing[:SHOWN]:
        warn(f"tensor {name!r} never had a value")
    for finding in result.findings[:SHOWN]:
        warn(f"tensor {finding.tensor!r} {finding.text}")
    if len(result.findings) > SHOWN:
        warn(f"{len(result.findings) - SHOWN} more tensors like these (--json lists all)")
    if result.curve:
        print_learning_curve(result.curve)
    for path in result.files:
        print(f"{'file' if result.reused else 'wrote'}  {path}")


def print_learning_curve(curve: Any) -> None:
    """The learning curve."""
    print(f"\nthresholds of {curve.rule} against those of all images:")
    print_rows(
        ("images", "median", "95th pct", "within 5 %"),
        [(f"{p.samples}", f"{p.median:.2%}", f"{p.p95:.2%}", f"{p.settled:.0%}") for p in curve.points],
    )
    if curve.enough is None:
        print("they have not settled: more images would change them\n")
    else:
        print(f"{curve.enough} images would have been enough (95 % of tensors within 5 % from there on)\n")


def calibrate_document(result: Calibration) -> dict[str, Any]:
    """The result for programs."""
    applied = result.preprocess.applied
    curve = result.curve
    return {
        "reused": result.reused,
        "files": [str(path) for path in result.files],
        "samples": result.samples,
        "batches": result.batches,
        "seconds": round(result.seconds, 3),
        "tensors": len(result.table),
        "rules": {
            name: {"header": table.header.text, "scales": dict(table.scales)} for name, table in result.tables.items()
        },
        "preprocess": applied.model_dump(mode="json") if applied else None,
        "preprocess_from": result.preprocess.source,
        "tensorrt_version": result.target,
        "tensorrt_version_from": result.target_source,
        "notes": list(result.notes),
        "warnings": list(result.warnings),
        "findings": [{"tensor": f.tensor, "text": f.text} for f in result.findings],
        "unwatched": list(result.unwatched.values()),
        "skipped": list(result.skipped),
        "missing": list(result.missing),
        "learning_curve": curve
        and {
            "rule": curve.rule,
            "enough": curve.enough,
            "points": [
                {"samples": p.samples, "median": p.median, "p95": p.p95, "settled": p.settled} for p in curve.points
            ],
        },
    }
