"""`quantkit calibrate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quantkit.cli.console import note, print_fields, print_json, print_rows, warn
from quantkit.cli.options import AlgorithmName, Force, Json, Rules, TensorRTVersion, byte_count

if TYPE_CHECKING:
    from quantkit.pipeline.calibrate import Calibration
    from quantkit.pipeline.options import CalibrateOptions

SHOWN = 8


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("calibrate")(calibrate)


def calibrate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The ONNX model.")],
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="PATH",
            help="Folder of images, .npy or .npz file, folder of .npz batches, or module:callable.",
        ),
    ],
    rule: Rules = "entropy",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="The table. Default: beside the model, MODEL.calib.",
        ),
    ] = None,
    preprocess: Annotated[
        str | None,
        typer.Option(
            "--preprocess",
            metavar="PRESET|FILE.toml",
            help="imagenet, imagenet-caffe, cifar10, yolo, unit, raw, or a TOML file. Default: preprocess.toml beside "
            "the model, else its metadata, else unit with a warning; arrays: raw.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Images at most, spread evenly over the sorted list. Default: 512.",
        ),
    ] = None,
    shuffle: Annotated[bool, typer.Option("--shuffle", help="Shuffle the images.")] = False,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of --shuffle.")] = 0,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            metavar="N",
            help="Images a batch. Default: the model's where it is fixed, else 32.",
        ),
    ] = None,
    skip_corrupt: Annotated[
        bool,
        typer.Option(
            "--skip-corrupt",
            help="Leave out images that cannot be read, and count them.",
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", help="Threads that decode and run. Default: one a core, 8 at most."),
    ] = None,
    backend: Annotated[str, typer.Option(metavar="auto|onnxruntime|tensorrt", help="What runs the network.")] = "auto",
    provider: Annotated[
        str,
        typer.Option(metavar="cpu|cuda", help="onnxruntime's execution provider."),
    ] = "cpu",
    histogram: Annotated[
        str,
        typer.Option(
            metavar="tensorrt|invariant",
            help="tensorrt: ranges as TensorRT settles them. invariant: independent of order; can be merged.",
        ),
    ] = "tensorrt",
    max_memory: Annotated[
        str,
        typer.Option("--max-memory", metavar="SIZE", help="Activations held at once."),
    ] = "1G",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    checkpoint_every: Annotated[
        int,
        typer.Option(
            "--checkpoint-every",
            metavar="N",
            help="Batches between checkpoints.",
        ),
    ] = 16,
    learning_curve: Annotated[
        bool,
        typer.Option(
            "--learning-curve",
            help="Show how thresholds settle with the number of images.",
        ),
    ] = False,
    tensorrt_version: TensorRTVersion = None,
    algorithm: AlgorithmName = None,
    force: Force = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary; warnings stay.")] = False,
    json: Json = False,
) -> None:
    """Calibrate MODEL on real data: statistics, and a calibration table for TensorRT.

    Writes MODEL.calib, its provenance MODEL.calib.json and MODEL.stats.safetensors. A second run with the same model,
    data and options reuses them.
    """
    from quantkit.cli.progress import Bar
    from quantkit.pipeline.calibrate import calibrate as run

    options = collected(
        limit=limit,
        shuffle=shuffle,
        seed=seed,
        batch_size=batch_size,
        skip_corrupt=skip_corrupt,
        workers=workers,
        backend=backend,
        provider=provider,
        histogram=histogram,
        max_memory=byte_count(max_memory),
        resume=resume,
        checkpoint_every=checkpoint_every,
        learning_curve=learning_curve,
        tensorrt_version=tensorrt_version,
        algorithm=algorithm,
        force=force,
    )
    hidden = quiet or json or not sys.stderr.isatty()
    result = run(
        model,
        data,
        rules=rule,
        preprocess=preprocess,
        output=output or model.with_suffix(".calib"),
        options=options,
        progress=Bar(hidden=hidden),
    )
    for text in result.warnings:
        warn(text)
    if json:
        print_json(document(result))
    elif not quiet:
        print_summary(result)


def collected(*, limit: int | None, shuffle: bool, seed: int, batch_size: int | None, skip_corrupt: bool,
              workers: int | None, histogram: str, algorithm: str | None, **rest: Any) -> CalibrateOptions:  # fmt: skip
    """The options as values. UsageError where a name is unknown."""
    from quantkit.cli.names import algorithm_named, histogram_named
    from quantkit.data import DataOptions
    from quantkit.pipeline.options import CalibrateOptions

    threads = {} if workers is None else {"workers": workers}
    data = DataOptions(
        limit=limit,
        shuffle=shuffle,
        seed=seed,
        batch_size=batch_size,
        skip_corrupt=skip_corrupt,
        **threads,
    )
    return CalibrateOptions(
        data=data,
        histogram=histogram_named(histogram),
        algorithm=algorithm_named(algorithm),
        **rest,
    )


def print_summary(result: Calibration) -> None:
    """What was done, for people."""
    for text in result.notes:
        note(text)
    covered = sum(scale > 0 for scale in result.table.scales.values())
    applied = result.preprocess.applied
    spec = f"{applied.describe() if applied else 'none'} ({result.preprocess.source})"
    per_second = result.samples / result.seconds if result.seconds else 0.0
    time = "reused, nothing was decoded" if result.reused else f"{result.seconds:.1f} s, {per_second:,.0f} images/s"
    batches = f"{result.samples:,} images in {result.batches:,} batches"
    fields = [
        ("input", "; ".join(result.inputs)),
        ("preprocess", spec),
        (
            "data",
            batches + (f", {len(result.skipped)} unreadable left out" if result.skipped else ""),
        ),
        ("tensors", f"{covered} of {len(result.table)} float tensors have a scale"),
        ("TensorRT", result.target),
        ("time", time),
    ]
    print_fields(fields)
    for reason in result.unwatched.values():
        warn(f"not watched: {reason}")
    for finding in result.findings[:SHOWN]:
        warn(f"tensor {finding.tensor!r} {finding.text}")
    if len(result.findings) > SHOWN:
        warn(f"{len(result.findings) - SHOWN} more tensors like these (--json lists all)")
    if result.curve:
        print_curve(result.curve)
    for path in result.files:
        print(f"{'file' if result.reused else 'wrote'}  {path}")


def print_curve(curve: Any) -> None:
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


def document(result: Calibration) -> dict[str, Any]:
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
        "notes": list(result.notes),
        "warnings": list(result.warnings),
        "findings": [{"tensor": f.tensor, "text": f.text} for f in result.findings],
        "unwatched": list(result.unwatched.values()),
        "skipped": list(result.skipped),
        "learning_curve": curve
        and {
            "rule": curve.rule,
            "enough": curve.enough,
            "points": [
                {"samples": p.samples, "median": p.median, "p95": p.p95, "settled": p.settled} for p in curve.points
            ],
        },
    }
