"""The commands `quantkit from-torch`, `from-tf` and `from-tflite`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantkit.cli import options
from quantkit.cli.arguments.parsing import NUMBER, WHOLE
from quantkit.cli.arguments.verb import verb
from quantkit.cli.terminal.console import Printing, print_fields, print_sizes, warn

if TYPE_CHECKING:
    from quantkit.frameworks.convert import Imported
    from quantkit.frameworks.exported import Shape

output = click.option("--output", "-o", metavar="PATH", type=options.PATH, required=True, help="ONNX model to write.")
opset = click.option(
    "--opset",
    metavar="N",
    type=WHOLE,
    help="ONNX opset. Default: 18 for from-torch, 17 for the others. TensorRT 8.6 supports up to 17.",
)
fixed_batch = click.option(
    "--fixed-batch",
    metavar="N",
    type=WHOLE,
    help="Convert for this batch size alone. Default: the batch is dynamic.",
)
shape = click.option(
    "--shape",
    metavar="NAME=SIZE,SIZE,…",
    multiple=True,
    help="Shape of an input, batch first: image=1,3,224,224 or ids=1,128:int64. Repeat it for each input.",
)
nchw = click.option(
    "--inputs-as-nchw",
    is_flag=True,
    help="Convert image inputs to channels first (NCHW), so that TensorRT need not transpose them.",
)
tolerance = click.option(
    "--tolerance",
    metavar="FRACTION",
    type=NUMBER,
    default=1e-3,
    show_default=True,
    help="Largest accepted difference from the framework's outputs, relative to their largest value.",
)


@verb(
    "Convert a PyTorch module to ONNX, and compare outputs",
    "quantkit from-torch my_model:make --shape image=1,3,224,224 -o model.onnx",
    "quantkit from-torch my_model:make --fixed-batch 1 -o model.onnx",
    name="from-torch",
)
@click.argument("source", metavar="MODULE:CALLABLE")
@output
@shape
@click.option("--output-names", metavar="NAME,NAME…", default="", help="Names of the outputs, in order.")
@opset
@click.option(
    "--exporter",
    metavar="dynamo|torchscript",
    help="PyTorch exporter to use. Default: dynamo if PyTorch has it, torchscript for --opset 17 and older.",
)
@fixed_batch
@tolerance
@options.force
@options.printing
def from_torch(
    source: str,
    output: Path,
    shape: tuple[str, ...],
    output_names: str,
    exporter: str | None,
    force: bool,
    printing: Printing,
    **own: Any,
) -> None:
    """Convert a PyTorch module to ONNX with a dynamic batch, and compare its outputs with PyTorch's.

    MODULE:CALLABLE, in this directory or installed, returns a torch.nn.Module with its weights, or (module, example
    inputs). Needs the libraries of the extra `torch`.
    """
    from quantkit.frameworks.convert import from_torch as run
    from quantkit.frameworks.pytorch import TorchOptions
    from quantkit.frameworks.torch_exporters import Exporter

    chosen = TorchOptions(
        exporter=Exporter.named(exporter) if exporter else None,
        output_names=tuple(name for name in output_names.split(",") if name),
        **own,
    )
    print_import(run(source, output, shapes=input_shapes(shape), options=chosen, force=force), printing)


@verb(
    "Convert a SavedModel or a Keras model to ONNX",
    "quantkit from-tf saved_model -o model.onnx",
    "quantkit from-tf model.keras --inputs-as-nchw -o model.onnx",
    name="from-tf",
)
@click.argument("source", metavar="SAVED_MODEL|FILE.keras|FILE.h5", type=options.PATH)
@output
@shape
@click.option("--signature", metavar="NAME", help="Signature of a SavedModel. Default: serving_default.")
@opset
@nchw
@fixed_batch
@tolerance
@options.force
@options.printing
def from_tf(source: Path, output: Path, shape: tuple[str, ...], force: bool, printing: Printing, **own: Any) -> None:
    """Convert a TensorFlow SavedModel or a Keras model to ONNX, and compare its outputs with TensorFlow's.

    Needs the libraries of the extra `tensorflow`.
    """
    from quantkit.frameworks.convert import from_tf as run
    from quantkit.frameworks.tensorflow import TfOptions

    print_import(run(source, output, shapes=input_shapes(shape), options=TfOptions(**own), force=force), printing)


@verb(
    "Convert a TFLite model to ONNX",
    "quantkit from-tflite model.tflite -o model.onnx --json",
    "quantkit from-tflite model.tflite -o model.onnx",
    name="from-tflite",
)
@click.argument("source", metavar="FILE.tflite", type=options.PATH)
@output
@opset
@nchw
@click.option("--dequantize", is_flag=True, help="Convert a quantized model to float, to be calibrated again.")
@fixed_batch
@tolerance
@options.force
@options.printing
def from_tflite(source: Path, output: Path, force: bool, printing: Printing, **own: Any) -> None:
    """Convert a TFLite model to ONNX, and compare its outputs with the TFLite interpreter's.

    Needs the libraries of the extra `tensorflow`.
    """
    from quantkit.frameworks.convert import from_tflite as run
    from quantkit.frameworks.tflite import TfliteOptions

    print_import(run(source, output, options=TfliteOptions(**own), force=force), printing)


def input_shapes(texts: tuple[str, ...]) -> dict[str, Shape]:
    """Return the values of --shape by input. UsageError."""
    from quantkit.frameworks.exported import parse_input_shape

    return dict(parse_input_shape(text) for text in texts)


def print_import(result: Imported, printing: Printing) -> None:
    """Print the result; a warning that nothing was compared is printed with --quiet too."""
    if result.unchecked and not printing.as_json:
        warn(f"the outputs were not compared: {result.unchecked}")
    printing.print_result(result, import_document, print_imported_model)


def print_imported_model(result: Imported) -> None:
    """Print the model's interface, and how its outputs compare with the framework's."""
    fields = [("from", f"{result.source}, by {result.exporter}")]
    fields += [("input", i.describe()) for i in result.inputs]
    fields += [("output", name) for name in result.outputs]
    fields.append(("opset", str(result.opset)))
    fields += [
        ("compared", f"{c.output} at batch {c.batch}: largest difference {c.largest:.1e} of {c.magnitude:.3g}")
        for c in result.compared
    ]
    fields += [("note", note) for note in result.notes]
    print_fields(fields)
    print_sizes(result.files)


def import_document(result: Imported) -> dict[str, Any]:
    """Return the result for programs."""
    return {
        "files": [str(path) for path in result.files],
        "source": result.source,
        "exporter": result.exporter,
        "opset": result.opset,
        "inputs": [asdict(i) for i in result.inputs],
        "outputs": list(result.outputs),
        "compared": [asdict(c) for c in result.compared],
        "unchecked": result.unchecked,
        "notes": list(result.notes),
    }
