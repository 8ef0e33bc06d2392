"""`quantkit from-torch`, `from-tf`, `from-tflite`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantkit.cli import options
from quantkit.cli.console import print_fields, print_json, warn

if TYPE_CHECKING:
    from quantkit.frameworks.convert import Imported
    from quantkit.frameworks.exported import Shape

output = click.option("--output", "-o", metavar="PATH", type=options.PATH, required=True, help="The ONNX model.")
opset = click.option(
    "--opset",
    metavar="N",
    type=int,
    help="Operator set. Default: 18 for from-torch, 17 for the others. TensorRT 8.6 reads up to 17.",
)
fixed_batch = click.option(
    "--fixed-batch", metavar="N", type=click.IntRange(min=1), help="One batch size only. Default: any."
)
shape = click.option(
    "--shape",
    metavar="NAME=SIZE,SIZE,…",
    multiple=True,
    help="Shape of an input, batch first: image=1,3,224,224, ids=1,128:int64. Once for each input.",
)
nchw = click.option(
    "--inputs-as-nchw",
    is_flag=True,
    help="Image inputs get their channels first: TensorRT need not transpose them.",
)
tolerance = click.option(
    "--tolerance",
    metavar="SHARE",
    type=click.FloatRange(min=0),
    default=1e-3,
    show_default=True,
    help="Largest difference from the framework's outputs, as a share of the largest value.",
)


@click.command("from-torch")
@click.argument("source", metavar="MODULE:CALLABLE")
@output
@shape
@click.option("--output-names", metavar="NAME,NAME…", default="", help="Names of the outputs, in order.")
@opset
@click.option(
    "--exporter",
    metavar="dynamo|torchscript",
    help="Which of PyTorch's exporters. Default: dynamo where PyTorch has it, torchscript for --opset 17 and older.",
)
@fixed_batch
@tolerance
@options.force
@options.quiet
@options.as_json
def from_torch(
    source: str,
    output: Path,
    shape: tuple[str, ...],
    output_names: str,
    exporter: str | None,
    tolerance: float,
    force: bool,
    quiet: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Write a PyTorch module as ONNX, its batch dynamic, and compare its outputs with PyTorch's.

    MODULE:CALLABLE, found in this directory or installed, returns a torch.nn.Module with its weights, or (module,
    example inputs). Needs the libraries of the extra `torch`.
    """
    from quantkit.frameworks.convert import from_torch as run
    from quantkit.frameworks.pytorch import TorchOptions
    from quantkit.frameworks.torch_exporters import Exporter

    chosen = TorchOptions(
        exporter=Exporter.named(exporter) if exporter else None,
        output_names=tuple(name for name in output_names.split(",") if name),
        tolerance=tolerance,
        **settings,
    )
    print_import(run(source, output, shapes=shapes(shape), options=chosen, force=force), quiet, as_json)


@click.command("from-tf")
@click.argument("source", metavar="SAVED_MODEL|FILE.keras|FILE.h5", type=options.PATH)
@output
@shape
@click.option("--signature", metavar="NAME", help="Signature of a SavedModel. Default: serving_default.")
@opset
@nchw
@fixed_batch
@tolerance
@options.force
@options.quiet
@options.as_json
def from_tf(
    source: Path, output: Path, shape: tuple[str, ...], force: bool, quiet: bool, as_json: bool, **settings: Any
) -> None:
    """Write a TensorFlow SavedModel or a Keras model as ONNX, and compare its outputs with TensorFlow's.

    Needs the libraries of the extra `tensorflow`.
    """
    from quantkit.frameworks.convert import from_tf as run
    from quantkit.frameworks.tensorflow import TfOptions

    print_import(run(source, output, shapes=shapes(shape), options=TfOptions(**settings), force=force), quiet, as_json)


@click.command("from-tflite")
@click.argument("source", metavar="FILE.tflite", type=options.PATH)
@output
@opset
@nchw
@click.option("--dequantize", is_flag=True, help="Make a float network of a quantized model, to be calibrated anew.")
@fixed_batch
@tolerance
@options.force
@options.quiet
@options.as_json
def from_tflite(source: Path, output: Path, force: bool, quiet: bool, as_json: bool, **settings: Any) -> None:
    """Write a TFLite model as ONNX, and compare its outputs with the TFLite interpreter's.

    Needs the libraries of the extra `tensorflow`.
    """
    from quantkit.frameworks.convert import from_tflite as run
    from quantkit.frameworks.tflite import TfliteOptions

    print_import(run(source, output, options=TfliteOptions(**settings), force=force), quiet, as_json)


def shapes(texts: tuple[str, ...]) -> dict[str, Shape]:
    """The --shape options. UsageError."""
    from quantkit.frameworks.exported import parse_input_shape

    return dict(parse_input_shape(text) for text in texts)


def print_import(made: Imported, quiet: bool, as_json: bool) -> None:
    """The result, as text or JSON; that nothing was compared is said in any case."""
    if as_json:
        print_json(import_document(made))
        return
    if made.unchecked:
        warn(f"the outputs were not compared: {made.unchecked}")
    if quiet:
        return
    fields = [("from", f"{made.source}, by {made.exporter}")]
    fields += [("input", i.describe()) for i in made.inputs]
    fields += [("output", name) for name in made.outputs]
    fields.append(("opset", str(made.opset)))
    fields += [
        ("compared", f"{c.output} at batch {c.batch}: largest difference {c.largest:.1e} of {c.magnitude:.3g}")
        for c in made.compared
    ]
    fields += [("note", note) for note in made.notes]
    print_fields(fields)
    for path in made.files:
        size = path.stat().st_size
        print(f"wrote  {path}  {size / 2**20:.1f} MiB" if size >= 1 << 20 else f"wrote  {path}  {size / 1024:.0f} KiB")


def import_document(made: Imported) -> dict[str, Any]:
    """The result for programs."""
    return {
        "files": [str(path) for path in made.files],
        "source": made.source,
        "exporter": made.exporter,
        "opset": made.opset,
        "inputs": [asdict(i) for i in made.inputs],
        "outputs": list(made.outputs),
        "compared": [asdict(c) for c in made.compared],
        "unchecked": made.unchecked,
        "notes": list(made.notes),
    }
