"""The command `quantkit export triton`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantkit.cli import options
from quantkit.cli.arguments.parsing import WHOLE
from quantkit.cli.arguments.verb import VerbGroup, verb
from quantkit.cli.terminal.console import Printing, note, print_fields

if TYPE_CHECKING:
    from quantkit.export.triton import TritonExport


@click.group("export", cls=VerbGroup, short_help="Export for an inference server (Triton)")
def export_group() -> None:
    """Export for an inference server."""


@verb(
    "Write a model repository for Triton Inference Server",
    "quantkit export triton model.int8.onnx -o models",
    "quantkit export triton model.int8.engine -o models",
    name="triton",
    group=export_group,
)
@click.argument("subject", metavar="MODEL|ENGINE", type=options.PATH)
@click.option("--output", "-o", metavar="DIR", type=options.PATH, required=True, help="Model repository to write to.")
@click.option("--name", metavar="NAME", help="Name of the model. Default: the file's name.")
@click.option(
    "--version",
    metavar="N",
    type=WHOLE,
    default=1,
    show_default=True,
    help="Version to write; other versions are kept.",
)
@click.option(
    "--max-batch",
    metavar="N",
    type=WHOLE,
    help="Largest batch size; 0 disables batching. Default: the engine's; for ONNX the largest measured one, else 8.",
)
@click.option("--labels", metavar="FILE", type=options.PATH, help="Class names, one per line.")
@click.option(
    "--bench",
    metavar="FILE",
    type=options.PATH,
    help="Output of quantkit bench --json; batch sizes and instances are those with the best throughput.",
)
@click.option(
    "--preprocess",
    metavar="PRESET|FILE|none",
    help="Preprocessing for the ensemble and the client: a preset, a TOML file, or none. Default: preprocess.toml "
    "beside the file, else the model's metadata.",
)
@click.option("--accelerator", metavar="tensorrt", help="Let onnxruntime build a TensorRT engine from an ONNX model.")
@click.option(
    "--precision",
    metavar="P",
    help="Precision of the accelerator: fp32, fp16 or int8. Default: int8 for a model with Q/DQ nodes, else fp32.",
)
@options.allow_code
@options.device
@options.force
@options.printing_loudly
def triton(
    subject: Path,
    output: Path,
    labels: Path | None,
    bench: Path | None,
    preprocess: str | None,
    printing: Printing,
    **own: Any,
) -> None:
    """Write a model repository for Triton Inference Server, from an engine or from an ONNX model (onnxruntime)."""
    from quantkit.export.triton import TritonOptions, export_triton

    result = export_triton(
        subject, output, options=TritonOptions(**own), preprocess=preprocess, labels=labels, bench=bench
    )
    printing.print_result(result, triton_document, print_triton_export)


def print_triton_export(result: TritonExport) -> None:
    """Print the models that were written, and how they are configured."""
    for text in result.notes:
        note(text)
    tuning = result.tuning
    print_fields(
        [
            ("models", f"{', '.join(result.models)} (version {result.version})"),
            ("batches", f"up to {result.max_batch}" if result.max_batch else "none"),
            ("tuned", tuning.why if tuning else untuned_text(result.max_batch)),
            *([("pixels", result.preprocess.describe())] if result.preprocess else []),
            *([("checked", "Triton's protocol buffers accept it")] if result.checked else []),
            *(("wrote", str(path)) for path in result.files),
        ]
    )


def untuned_text(max_batch: int) -> str:
    """Return how the configuration is chosen without measurements."""
    return f"not measured: one instance{', batches of waiting requests' if max_batch else ''} (--bench)"


def triton_document(result: TritonExport) -> dict[str, Any]:
    """Return the result for programs."""
    from dataclasses import asdict

    return {
        "repository": str(result.repository),
        "models": list(result.models),
        "version": result.version,
        "max_batch": result.max_batch,
        "files": [str(path) for path in result.files],
        "tuning": asdict(result.tuning) if result.tuning else None,
        "preprocess": result.preprocess.model_dump(mode="json") if result.preprocess else None,
        "checked": result.checked,
        "notes": list(result.notes),
    }
