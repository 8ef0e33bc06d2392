"""`quantkit build`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantkit.cli import options
from quantkit.cli.console import note, print_fields, print_json, warn

if TYPE_CHECKING:
    from quantkit.engines.build import BuiltEngine

SHOWN = 40


@click.command()
@click.argument("model", metavar="MODEL", type=options.PATH)
@click.option(
    "--precision",
    metavar="fp32|tf32|fp16|int8|best",
    default="int8",
    show_default=True,
    help="What layers may compute in; each includes those before it as fallback.",
)
@click.option(
    "--table",
    metavar="PATH",
    type=options.PATH,
    help="Calibration table. Default: MODEL.calib beside the model, unless the model has Q/DQ.",
)
@click.option(
    "--output",
    "-o",
    metavar="PATH",
    type=options.PATH,
    help="The engine. Default: beside the model, MODEL.<gpu>.<TensorRT>.<precision>.engine.",
)
@options.shapes
@click.option("--workspace", metavar="SIZE", help="Scratch memory at most. Default: all of the GPU.")
@options.level
@click.option("--no-fp16", is_flag=True, help="INT8 without FP16 as fallback.")
@click.option("--no-tf32", is_flag=True, help="FP32 without TF32.")
@click.option(
    "--exclude",
    metavar="NODE|PATTERN|OPERATOR",
    multiple=True,
    help="Keep nodes out of INT8; several times. @FILE takes one from each line.",
)
@options.min_coverage
@click.option("--retarget", is_flag=True, help="Use a table of another TensorRT version.")
@click.option("--strongly-typed", is_flag=True, help="Precisions from the network alone (TensorRT 10 and newer).")
@click.option("--version-compatible", is_flag=True, help="An engine for later TensorRT versions too.")
@click.option("--hardware-compatible", is_flag=True, help="An engine for all GPUs from Ampere on.")
@click.option("--refit", is_flag=True, help="An engine whose weights can be replaced.")
@click.option(
    "--verbosity",
    metavar="detailed|names|none",
    default="detailed",
    show_default=True,
    help="What the engine tells about its layers.",
)
@click.option("--no-timing-cache", is_flag=True, help="Neither use nor keep measured kernel times.")
@options.device
@click.option("--layers", "all_layers", is_flag=True, help="Show every layer, not only those that are not INT8.")
@options.force
@options.quiet
@options.as_json
def build(
    model: Path,
    table: Path | None,
    output: Path | None,
    all_layers: bool,
    quiet: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Build a TensorRT engine of MODEL for this machine's GPU.

    INT8 takes its scales from a calibration table, or from the Q/DQ nodes of the model. Writes the engine, its record
    (.json: options, layers, provenance), the table as it was used (.calib, where scales were filled in), and a timing
    cache for the next build. A second build of the same is reused.
    """
    from quantkit.cli.progress import Spinner
    from quantkit.engines.build import build as run

    with Spinner(hidden=quiet or as_json or not sys.stderr.isatty()) as spinner:
        made = run(model, options=build_options(settings), table=table, output=output, phase=spinner.phase)
    for text in made.warnings:
        warn(text)
    if as_json:
        print_json(build_document(made))
    elif not quiet:
        print_build(made, all_layers=all_layers)


def build_options(settings: dict[str, Any]) -> Any:
    """The options as values. UsageError."""
    from quantkit.backends.tensorrt.options import BuildOptions, Precision, Verbosity
    from quantkit.sensitivity.exclusion_file import expand_name_files

    workspace = settings.pop("workspace")
    return BuildOptions(
        precision=Precision.named(settings.pop("precision")),
        verbosity=Verbosity.named(settings.pop("verbosity")),
        fp16=not settings.pop("no_fp16"),
        tf32=not settings.pop("no_tf32"),
        timing_cache=not settings.pop("no_timing_cache"),
        workspace=options.parse_size(workspace) if workspace else None,
        exclude=expand_name_files(settings.pop("exclude")),
        shapes=tuple(settings.pop("shapes")),
        **settings,
    )


def print_build(made: BuiltEngine, *, all_layers: bool) -> None:
    """What was built, for people."""
    record = made.record
    for text in made.notes:
        note(text)
    fields = [
        ("engine", f"{record.precision} for {record.gpu}, TensorRT {record.tensorrt}"),
        ("shapes", "; ".join(f"{name} {text}" for name, text in record.shapes.items())),
        ("size", f"{record.bytes / 2**20:.1f} MiB, {record.device_memory / 2**20:.1f} MiB of activations a context"),
        ("layers", ", ".join(f"{count} {name}" for name, count in made.counts.items()) or "not told"),
        ("time", "nothing was built" if made.reused else f"{record.seconds:.1f} s"),
    ]
    if record.table:
        use = record.table
        filled = f", {len(use.completed)} of them from the network itself" if use.completed else ""
        fields.insert(1, ("table", f"{use.file}: {use.share:.1%} of the float tensors have a scale{filled}"))
    print_fields(fields)
    rows = [layer for layer in record.layers if all_layers or layer.reason]
    if rows:
        print("\nlayers" if all_layers else "\nlayers that are not INT8, and why")
    for layer in rows[: None if all_layers else SHOWN]:
        print(f"  {layer.precision:<7} {layer.name}")
        if layer.reason:
            print(f"          {layer.reason}")
    if len(rows) > SHOWN and not all_layers:
        print(f"  … {len(rows) - SHOWN} more (--layers shows all)")
    print()
    if made.command.line:
        print(f"the same with trtexec:\n{made.command.line}\n")
    elif made.command.reason:
        print(f"no trtexec line: {made.command.reason}\n")
    print(f"{'file' if made.reused else 'wrote'}  {made.path}")


def build_document(made: BuiltEngine) -> dict[str, Any]:
    """The result for programs."""
    return {
        "engine": str(made.path),
        "reused": made.reused,
        "notes": list(made.notes),
        "warnings": list(made.warnings),
        "precisions": made.counts,
        **made.record.model_dump(mode="json", exclude={"format", "warnings"}),
    }
