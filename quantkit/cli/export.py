"""`quantkit export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantkit.cli import options
from quantkit.cli.console import note, print_fields, print_json

if TYPE_CHECKING:
    from quantkit.export.triton import TritonExport


@click.group("export")
def export_group() -> None:
    """What serves a network elsewhere."""


@export_group.command("triton")
@click.argument("subject", metavar="MODEL|ENGINE", type=options.PATH)
@click.option("--output", "-o", metavar="DIR", type=options.PATH, required=True, help="The model repository.")
@click.option("--name", metavar="NAME", help="The model's name. Default: that of the file.")
@click.option("--version", metavar="N", type=int, default=1, show_default=True, help="Version to write; others stay.")
@click.option(
    "--max-batch",
    metavar="N",
    type=int,
    help="Largest batch, 0 for none. Default: the engine's; for ONNX the largest that was measured, else 8.",
)
@click.option("--labels", metavar="FILE", type=options.PATH, help="Names of the classes, one a line.")
@click.option(
    "--bench",
    metavar="FILE",
    type=options.PATH,
    help="Output of quantkit bench --json: batches and instances are those of the best throughput.",
)
@click.option(
    "--preprocess",
    metavar="PRESET|FILE|none",
    help="How images become inputs, for an ensemble and a client. Default: preprocess.toml beside the file, else the "
    "model's metadata.",
)
@click.option("--accelerator", metavar="tensorrt", help="Let onnxruntime build a TensorRT engine of an ONNX model.")
@click.option("--precision", metavar="P", help="Of the accelerator: int8 (default with Q/DQ), fp32 (default), fp16.")
@click.option("--allow-code", is_flag=True, help="Run the code that a version compatible engine brings, to look at it.")
@options.device
@options.force
@options.as_json
def triton(
    subject: Path,
    output: Path,
    labels: Path | None,
    bench: Path | None,
    preprocess: str | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Write a model repository for Triton Inference Server: an engine, or an ONNX model on onnxruntime."""
    from quantkit.export.triton import TritonOptions, export_triton

    made = export_triton(
        subject,
        output,
        options=TritonOptions(**settings),
        preprocess=preprocess,
        labels=labels,
        bench=bench,
    )
    if as_json:
        print_json(triton_document(made))
        return
    for text in made.notes:
        note(text)
    tuning = made.tuning
    print_fields(
        [
            ("models", f"{', '.join(made.models)} (version {made.version})"),
            ("batches", f"up to {made.max_batch}" if made.max_batch else "none"),
            ("tuned", tuning.why if tuning else untuned_text(made.max_batch)),
            *([("pixels", made.preprocess.describe())] if made.preprocess else []),
            *([("checked", "Triton's protocol buffers read it")] if made.checked else []),
            *(("wrote", str(path)) for path in made.files),
        ]
    )


def untuned_text(max_batch: int) -> str:
    """What the configuration says where nothing was measured."""
    return f"not measured: one instance{', batches of what waits' if max_batch else ''} (--bench)"


def triton_document(made: TritonExport) -> dict[str, Any]:
    """The result for programs."""
    from dataclasses import asdict

    return {
        "repository": str(made.repository),
        "models": list(made.models),
        "version": made.version,
        "max_batch": made.max_batch,
        "files": [str(path) for path in made.files],
        "tuning": asdict(made.tuning) if made.tuning else None,
        "preprocess": made.preprocess.model_dump(mode="json") if made.preprocess else None,
        "checked": made.checked,
        "notes": list(made.notes),
    }
