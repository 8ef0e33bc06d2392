"""The command `quantkit inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantkit.cli import options
from quantkit.cli.arguments.verb import verb
from quantkit.cli.terminal.console import Printing, print_fields, print_line, warn

if TYPE_CHECKING:
    from quantkit.inspection.model import Inspection


@verb(
    "Show what a model contains and what can be calibrated",
    "quantkit inspect model.onnx",
    "quantkit inspect model.onnx --json",
)
@click.argument("model", metavar="MODEL", type=options.PATH)
@click.option("--tensors", is_flag=True, help="List every observed tensor.")
@options.printing_tables_loudly
def inspect(model: Path, tensors: bool, printing: Printing) -> None:
    """Show what MODEL contains, and which tensors a calibration would observe."""
    from quantkit.inspection.model import inspect as run

    printing.print_result(run(model), inspect_document, lambda result: print_inspection(result, tensors=tensors))


def print_inspection(result: Inspection, *, tensors: bool) -> None:
    """Print the model at a glance, and its observed tensors if asked for."""
    watch = result.watch
    memory = result.bytes_per_sample
    fields = [
        ("model", result.path),
        ("sha256", result.sha256),
        ("opset", str(result.opset)),
        *(("input", text) for text in result.inputs),
        *(("output", name) for name in result.outputs),
        ("batch", "dynamic" if result.fixed_batch is None else f"fixed at {result.fixed_batch}"),
        ("operators", ", ".join(f"{n} {op}" for op, n in result.operators.items())),
        ("observed", f"{len(watch.tensors)} float tensors, {len(watch.channels)} of them inputs of weighted operators"),
        ("pools", f"{len(watch.shared)} take the scale of their input"),
        ("activations", "depends on the input size" if memory is None else f"{memory / 2**20:,.1f} MiB per sample"),
    ]
    if result.preprocess:
        fields.append(("preprocess", f"{result.preprocess} (the model's metadata)"))
    print_fields(fields)
    for text in result.warnings:
        warn(text)
    if tensors:
        print_line()
        for name in watch.tensors:
            share = watch.shared.get(name)
            print_line(f"{name}  (scale of {share})" if share else name)


def inspect_document(result: Inspection) -> dict[str, Any]:
    """Return the result for programs."""
    watch = result.watch
    return {
        "model": result.path,
        "sha256": result.sha256,
        "opset": result.opset,
        "inputs": list(result.inputs),
        "outputs": list(result.outputs),
        "operators": dict(result.operators),
        "nodes": [{"name": name, "operator": operator} for name, operator in result.nodes],
        "tensors": list(watch.tensors),
        "shared": dict(watch.shared),
        "channels": [{"tensor": v.tensor, "axis": v.axis} for v in watch.channels],
        "unwatched": list(watch.unwatched.values()),
        "weighted": result.weighted,
        "stay_float": {name: str(reason) for name, reason in result.stay_float.items()},
        "bytes_per_sample": result.bytes_per_sample,
        "preprocess": result.preprocess,
        "fixed_batch": result.fixed_batch,
    }
