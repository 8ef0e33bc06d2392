"""`quantkit inspect` and `quantkit doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from quantkit.cli import options
from quantkit.cli.console import print_fields, print_json, warn

if TYPE_CHECKING:
    from quantkit.inspection.model import Inspection


@click.command()
@click.argument("model", metavar="MODEL", type=options.PATH)
@click.option("--tensors", is_flag=True, help="List every watched tensor.")
@options.as_json
def inspect(model: Path, tensors: bool, as_json: bool) -> None:
    """Show what MODEL is and what a calibration would watch."""
    from quantkit.inspection.model import inspect as run

    found = run(model)
    watch = found.watch
    if as_json:
        print_json(
            {
                "model": found.path,
                "sha256": found.sha256,
                "opset": found.opset,
                "inputs": list(found.inputs),
                "outputs": list(found.outputs),
                "operators": dict(found.operators),
                "nodes": [{"name": name, "operator": operator} for name, operator in found.nodes],
                "tensors": list(watch.tensors),
                "shared": dict(watch.shared),
                "channels": [{"tensor": v.tensor, "axis": v.axis} for v in watch.channels],
                "unwatched": list(watch.unwatched.values()),
                "bytes_per_sample": found.bytes_per_sample,
                "preprocess": found.preprocess,
                "fixed_batch": found.fixed_batch,
            }
        )
        return
    print_inspection(found)
    for reason in watch.unwatched.values():
        warn(f"not watched: {reason}")
    if tensors:
        print()
        for name in watch.tensors:
            share = watch.shared.get(name)
            print(f"{name}  (scale of {share})" if share else name)


def print_inspection(found: Inspection) -> None:
    """The network at a glance."""
    watch = found.watch
    memory = found.bytes_per_sample
    fields = [
        ("model", found.path),
        ("sha256", found.sha256),
        ("opset", str(found.opset)),
        *(("input", text) for text in found.inputs),
        *(("output", name) for name in found.outputs),
        ("batch", "dynamic" if found.fixed_batch is None else f"fixed at {found.fixed_batch}"),
        ("operators", ", ".join(f"{n} {op}" for op, n in found.operators.items())),
        (
            "watched",
            f"{len(watch.tensors)} float tensors, {len(watch.channels)} of them inputs of weighted operators",
        ),
        ("pools", f"{len(watch.shared)} take the scale of their input"),
        (
            "activations",
            "depends on the input size" if memory is None else f"{memory / 2**20:,.1f} MiB a sample",
        ),
    ]
    if found.preprocess:
        fields.append(("preprocess", f"{found.preprocess} (the model's metadata)"))
    print_fields(fields)
