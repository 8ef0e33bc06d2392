"""The command `quantkit calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantkit.cli import options
from quantkit.cli.arguments import parsing
from quantkit.cli.arguments.parsing import WHOLE
from quantkit.cli.arguments.registry_option import BackendOption
from quantkit.cli.arguments.unused import refuse_unused
from quantkit.cli.arguments.verb import verb
from quantkit.cli.arguments.worker_choice import WorkerChoice, worker_choice
from quantkit.cli.terminal.console import Printing, note, print_fields, print_heading, print_line, print_rows, warn
from quantkit.cli.terminal.shard_lines import describe_shard, print_shard_file
from quantkit.errors import UsageError
from quantkit.paths import beside
from quantkit.rules import DEFAULT_RULE

if TYPE_CHECKING:
    from quantkit.calibration.options import CalibrateOptions
    from quantkit.calibration.result import Calibration

SHOWN = 8
ONE_RUN = ("rule", "tensorrt_version", "algorithm", "checkpoint_every")
"""Options that only concern the tables or the checkpoints of a whole run."""


@verb(
    "Write a calibration table for TensorRT 8.6 … 10.x",
    "quantkit calibrate model.onnx --data images/train --tensorrt-version 8.6.1",
    "quantkit calibrate model.onnx --data images/train --rule entropy,mse",
    "quantkit calibrate model.onnx --data images/train --shard 3/64 -o run",
)
@click.argument("model", metavar="MODEL", type=options.PATH)
@options.data_choice("shuffle", "seed", "batch_size", "threads", required=True)
@options.rules("Several make several tables from one pass over the data.", default=DEFAULT_RULE)
@click.option(
    "--output",
    "-o",
    metavar="PATH",
    type=options.PLACE,
    help="Calibration table to write. Default: MODEL.calib beside the model. With --shard: a folder, or a URL such as "
    "s3://bucket/run.",
)
@options.shard
@click.option(
    "--backend",
    cls=BackendOption,
    default="auto",
    show_default=True,
    envvar="QUANTKIT_BACKEND",
    help="Backend that runs the model. auto: TensorRT 8.6 … 10.x if it and a GPU are available and support the "
    "request, else onnxruntime. The variable QUANTKIT_BACKEND sets it too.",
)
@options.exclude
@options.provider
@click.option(
    "--histogram",
    metavar="tensorrt|invariant",
    default="tensorrt",
    show_default=True,
    help="Ranges of the histograms: as TensorRT chooses them (tensorrt), or independent of the order of the samples, "
    "so that statistics of any parts can be merged (invariant).",
)
@click.option("--max-memory", metavar="SIZE", help="Maximum memory for activations. Default: 1G, 4G on a GPU.")
@click.option("--resume", is_flag=True, help="Continue an interrupted run.")
@click.option(
    "--checkpoint-every",
    metavar="N",
    type=WHOLE,
    default=16,
    show_default=True,
    help="Number of batches between two checkpoints.",
)
@click.option("--learning-curve", is_flag=True, help="Show how the thresholds converge with the number of samples.")
@worker_choice
@options.header_choice()
@options.force
@options.printing
def calibrate(
    model: Path,
    samples: options.DataChoice,
    rule: str,
    output: Path | str | None,
    header: options.HeaderChoice,
    division: WorkerChoice,
    printing: Printing,
    **own: Any,
) -> None:
    """Calibrate MODEL on real data: collect statistics, and write a calibration table for TensorRT.

    Writes MODEL.calib, its provenance record MODEL.calib.json and MODEL.stats.safetensors. A second run with the same
    model, data and options reuses them.
    """
    from quantkit.calibration.calibrate import calibrate as run
    from quantkit.cli.terminal.progress import ProgressBar

    if own["shard"] is not None:
        refuse_unused(dict.fromkeys(ONE_RUN, "one shard writes statistics, and no table"))
        if output is None:
            raise UsageError("--shard needs the place of all shards", remedy="give a folder or a URL with --output")
    division.note_gpus(own["provider"], quiet=printing.quiet)
    result = run(
        model,
        samples.data,
        rule=rule,
        preprocess=samples.preprocess,
        output=output or beside(model, f"{model.stem}.calib"),
        options=calibrate_options(samples, header, division, own),
        progress=ProgressBar(hidden=printing.hides_progress, stopping=division.stopping),
    )
    for text in result.warnings:
        warn(text)
    printing.print_result(result, calibrate_document, print_shard if own["shard"] else print_calibration)


def calibrate_options(
    samples: options.DataChoice, header: options.HeaderChoice, division: WorkerChoice, own: dict[str, Any]
) -> CalibrateOptions:
    """Return the options as a value. UsageError."""
    from quantkit.calibration.options import CalibrateOptions
    from quantkit.sensitivity.exclusion_file import expand_name_files

    parsed = {
        "histogram": parsing.parse_histogram(own["histogram"]),
        "max_memory": parsing.parse_size(own["max_memory"]) if own["max_memory"] else None,
        "exclude": expand_name_files(own["exclude"]),
    }
    return CalibrateOptions(data=samples.reading(), **header.keywords(), **division.keywords(), **own | parsed)


def print_calibration(result: Calibration) -> None:
    """Print what was calibrated on what, and the tensors that need attention."""
    for text in result.notes:
        note(text)
    covered = sum(scale > 0 for scale in result.table.scales.values())
    about_data, time = describe_run(result)
    print_fields(
        [
            *about_data,
            ("tensors", f"{covered} of {len(result.table) + len(result.missing)} float tensors have a scale"),
            ("TensorRT", f"{result.target} ({result.target_source})"),
            ("time", time),
        ]
    )
    warn_about_tensors(result)
    if result.curve:
        print_learning_curve(result.curve, "image" if result.preprocess.applied else "sample")
    for path in result.files:
        print_line(f"{'file' if result.reused else 'wrote'}  {path}")


def describe_run(result: Calibration) -> tuple[list[tuple[str, str]], str]:
    """Return rows about inputs and data, and how long the run took, as text."""
    from quantkit.report.wording import count_noun

    applied = result.preprocess.applied
    spec = f"{applied.describe() if applied else 'none'} ({result.preprocess.source})"
    noun = "image" if applied else "sample"
    time = f"cached, no {noun}s {'decoded' if applied else 'read'}"
    if result.decoded:
        time = f"{result.seconds:.1f} s, {result.samples / max(result.seconds, 1e-9):,.0f} {noun}s/s"
    batches = f"{count_noun(result.samples, noun)} in {count_noun(result.batches, 'batch')}"
    left_out = f", {len(result.skipped)} unreadable left out" if result.skipped else ""
    return [("input", "; ".join(result.inputs)), ("preprocess", spec), ("data", batches + left_out)], time


def print_shard(result: Calibration) -> None:
    """Print what one shard was collected from, and how many of the run are there."""
    from quantkit.calibration.shard_files import SUFFIX

    assert result.statistics is not None
    record = result.statistics.shard
    assert record is not None
    for text in result.notes:
        note(text)
    about_data, time = describe_run(result)
    print_fields([*about_data, ("shard", describe_shard(record)), ("time", time)])
    for file in result.files:
        merging = "quantkit stats merge {} -o FILE.stats.safetensors"
        print_shard_file(file, record, SUFFIX, merging, reused=result.reused)


def warn_about_tensors(result: Calibration) -> None:
    """Warn about tensors without a scale, and about scales that look wrong."""
    for reason in result.unwatched.values():
        warn(f"not observed: {reason}")
    unscalable = result.statistics.unscalable if result.statistics else ()
    for name in [name for name in result.missing if name not in unscalable][:SHOWN]:
        warn(f"tensor {name!r} has no scale: no value was observed")
    for finding in result.findings[:SHOWN]:
        warn(f"tensor {finding.tensor!r} {finding.text}")
    if len(result.findings) > SHOWN:
        warn(f"{len(result.findings) - SHOWN} more tensors like these (--json lists all)")


def print_learning_curve(curve: Any, noun: str) -> None:
    """Print how far the thresholds from fewer images or samples are from those from all of them."""
    print_heading(f"{curve.rule} thresholds compared with those from all {noun}s:")
    print_rows(
        (f"{noun}s", "median", "95th pct", "within 5 %"),
        [(f"{p.samples}", f"{p.median:.2%}", f"{p.p95:.2%}", f"{p.settled:.0%}") for p in curve.points],
    )
    if curve.enough is None:
        print_line(f"the thresholds have not converged: more {noun}s would change them")
    else:
        print_line(f"{curve.enough} {noun}s would have been enough (95 % of tensors within 5 % from there on)")
    print_line()


def calibrate_document(result: Calibration) -> dict[str, Any]:
    """Return the result for programs."""
    applied = result.preprocess.applied
    curve = result.curve
    record = result.statistics.shard if result.statistics else None
    return {
        "shard": str(record.shard) if record else None,
        "reused": result.reused,
        "files": [str(path) for path in result.files],
        "samples": result.samples,
        "batches": result.batches,
        "seconds": round(result.seconds, 3),
        "tensors": len(result.statistics or ()) if record else len(result.table),
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
