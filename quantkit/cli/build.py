"""The command `quantkit build`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantkit.cli import options
from quantkit.cli.arguments import parsing
from quantkit.cli.arguments.engine_options import tuned_folder
from quantkit.cli.arguments.verb import verb
from quantkit.cli.terminal.console import Printing, note, print_fields, print_heading, print_line, warn

if TYPE_CHECKING:
    from quantkit.backends.engine_record import EngineRecord
    from quantkit.backends.tensorrt.options import BuildOptions
    from quantkit.engines.built_engine import BuiltEngine

SHOWN = 40


@verb(
    "Build a TensorRT engine for the GPU of this machine",
    "quantkit build model.onnx --precision int8",
    "quantkit build model.int8.onnx --shapes image=1:8:32",
    "quantkit build model.onnx --tuned model.tuned",
)
@click.argument("model", metavar="MODEL", type=options.PATH)
@click.option(
    "--precision",
    metavar="fp32|tf32|fp16|int8|best",
    default="int8",
    show_default=True,
    help="Precision that layers may use; each allows those before it as fallback.",
)
@options.engine_table("MODEL.calib beside the model, unless the model has Q/DQ nodes")
@tuned_folder
@click.option(
    "--output",
    "-o",
    metavar="PATH",
    type=options.PATH,
    help="Engine to write. Default: MODEL.<gpu>.<TensorRT>.<precision>.engine beside the model.",
)
@options.engine_choice("batches 1:32:32")
@click.option("--workspace", metavar="SIZE", help="Maximum scratch memory. Default: all of the GPU's memory.")
@click.option("--no-tf32", is_flag=True, help="Do not let FP32 layers run in TF32.")
@options.exclude
@options.min_coverage
@click.option("--strongly-typed", is_flag=True, help="Take precisions from the model alone (TensorRT 10 and newer).")
@click.option("--version-compatible", is_flag=True, help="Build an engine that later TensorRT versions can load.")
@click.option("--hardware-compatible", is_flag=True, help="Build an engine for all GPUs from Ampere on.")
@click.option("--refit", is_flag=True, help="Build an engine whose weights can be replaced.")
@click.option(
    "--verbosity",
    metavar="detailed|names|none",
    default="detailed",
    show_default=True,
    help="How much the engine reports about its layers.",
)
@click.option("--no-timing-cache", is_flag=True, help="Neither read nor write measured kernel times.")
@click.option("--layers", "all_layers", is_flag=True, help="Show every layer, not only those that are not INT8.")
@options.printing
def build(
    model: Path,
    table: Path | None,
    tuned: Path | None,
    output: Path | None,
    engine: options.EngineChoice,
    all_layers: bool,
    printing: Printing,
    **own: Any,
) -> None:
    """Build a TensorRT engine from MODEL for this machine's GPU.

    INT8 takes its scales from a calibration table, or from the Q/DQ nodes of the model. Writes the engine, its record
    (.json: options, layers, provenance), the table as it was used (.calib, if scales were filled in), and a timing
    cache for the next build. Building the same again reuses the engine.
    """
    from quantkit.cli.terminal.progress import Spinner
    from quantkit.engines.build import build as run

    with Spinner(hidden=printing.hides_progress) as spinner:
        result = run(
            model, options=build_options(engine, own), table=table, tuned=tuned, output=output, phase=spinner.phase
        )
    for text in result.warnings:
        warn(text)
    printing.print_result(result, build_document, lambda built: print_build(built, all_layers=all_layers))


def build_options(engine: options.EngineChoice, own: dict[str, Any]) -> BuildOptions:
    """Return the options as a value. UsageError."""
    from quantkit.backends.tensorrt.options import BuildOptions, Precision, Verbosity
    from quantkit.sensitivity.exclusion_file import expand_name_files

    return BuildOptions(
        **engine.keywords(),
        precision=Precision.named(own["precision"]),
        verbosity=Verbosity.named(own["verbosity"]),
        tf32=not own["no_tf32"],
        timing_cache=not own["no_timing_cache"],
        workspace=parsing.parse_size(own["workspace"]) if own["workspace"] else None,
        exclude=expand_name_files(own["exclude"]),
        min_coverage=own["min_coverage"],
        strongly_typed=own["strongly_typed"],
        version_compatible=own["version_compatible"],
        hardware_compatible=own["hardware_compatible"],
        refit=own["refit"],
    )


def print_build(result: BuiltEngine, *, all_layers: bool) -> None:
    """Print what was built, its layers, and the trtexec command that builds the same."""
    record = result.record
    for text in result.notes:
        note(text)
    fields = [
        ("engine", f"{record.precision} for {record.gpu}, TensorRT {record.tensorrt}"),
        ("shapes", "; ".join(f"{name} {text}" for name, text in record.shapes.items())),
        (
            "size",
            f"{record.bytes / 2**20:.1f} MiB, {record.device_memory / 2**20:.1f} MiB of activations per context",
        ),
        ("layers", ", ".join(f"{count} {name}" for name, count in result.counts.items()) or "not reported"),
        ("time", "cached, nothing was built" if result.reused else f"{record.seconds:.1f} s"),
    ]
    if record.table:
        use = record.table
        filled = f"; {len(use.completed)} scales are derived from the model itself" if use.completed else ""
        fields.insert(
            1, ("table", f"{use.file}: {use.share:.1%} of the tensors that calibration observes have a scale{filled}")
        )
    print_fields(fields)
    print_engine_layers(record, all_layers=all_layers)
    print_line()
    if result.command.line:
        print_line("equivalent trtexec command:")
        print_line(result.command.line)
    elif result.command.reason:
        print_line(f"no equivalent trtexec command: {result.command.reason}")
    print_line()
    print_line(f"{'file' if result.reused else 'wrote'}  {result.path}")


def print_engine_layers(record: EngineRecord, *, all_layers: bool) -> None:
    """Print the layers that are not INT8 with the reason, or every layer."""
    rows = [layer for layer in record.layers if all_layers or layer.reason]
    if rows:
        print_heading("layers" if all_layers else "layers that are not INT8, and why")
    for layer in rows[: None if all_layers else SHOWN]:
        print_line(f"  {layer.precision:<7} {layer.name}")
        if layer.reason:
            print_line(f"          {layer.reason}")
    if len(rows) > SHOWN and not all_layers:
        print_line(f"  … {len(rows) - SHOWN} more (--layers shows all)")


def build_document(result: BuiltEngine) -> dict[str, Any]:
    """Return the result for programs."""
    return {
        "engine": str(result.path),
        "reused": result.reused,
        "notes": list(result.notes),
        "warnings": list(result.warnings),
        "precisions": result.counts,
        **result.record.model_dump(mode="json", exclude={"format", "warnings"}),
    }
