"""The verbs from-torch, from-tf and from-tflite: a framework's model → a checked ONNX model for every other verb.

The ONNX model computes what the framework computes: onnxruntime's outputs are compared with the framework's on random
inputs, in two batch sizes if the batch is dynamic, neither of which was the exporter's example.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantkit.artifact import check_destinations
from quantkit.backends.trial_run import try_alone
from quantkit.errors import ModelError, UsageError, first_line
from quantkit.frameworks.clean_export import clean_copy
from quantkit.frameworks.exported import Exported, Shape
from quantkit.frameworks.output_check import OutputDifference, check_outputs
from quantkit.frameworks.pytorch import TorchFields, TorchOptions, load_torch, require_torch
from quantkit.frameworks.pytorch import export_torch as torch_exported
from quantkit.frameworks.tensorflow import TfFields, TfOptions
from quantkit.frameworks.tensorflow import export_tf as tf_exported
from quantkit.frameworks.tflite import TfliteFields, TfliteOptions
from quantkit.frameworks.tflite import export_tflite as tflite_exported
from quantkit.graph import Model, load_model, write_model
from quantkit.keywords.option_fields import takes_fields
from quantkit.staging import staging_folder, write_failure
from quantkit.values import ModelInput, checked_options
from quantkit.view import Block, Remarks, RichDisplay, ViewTable

if TYPE_CHECKING:
    from typing_extensions import Unpack


@dataclass(frozen=True, slots=True)
class Imported(RichDisplay):
    """A frozen value: a converted model. compared: each output in each batch size; empty if `unchecked` says why."""

    files: tuple[Path, ...]
    source: str
    exporter: str
    opset: int
    inputs: tuple[ModelInput, ...]
    outputs: tuple[str, ...]
    compared: tuple[OutputDifference, ...]
    unchecked: str
    notes: tuple[str, ...]

    @property
    def path(self) -> Path:
        """Path of the model."""
        return self.files[0]

    def _view_(self) -> Sequence[Block]:
        rows = [(found.output, f"{found.batch}", f"{found.share:.2g}") for found in self.compared]
        return (
            f"{self.path.name}, opset {self.opset}: converted from {self.source} by {self.exporter}",
            ViewTable(("output", "batch", "difference / largest value"), rows),
            Remarks([*([self.unchecked] if self.unchecked else []), *self.notes]),
        )


@takes_fields(TorchOptions)
def from_torch(
    module: Any,
    output: str | os.PathLike[str],
    *,
    example: Any = None,
    shapes: Mapping[str, Shape | tuple[int, ...]] | None = None,
    options: TorchOptions | None = None,
    force: bool = False,
    **_: Unpack[TorchFields],
) -> Imported:
    """Convert a PyTorch module to ONNX with a dynamic batch.

    module: a torch.nn.Module, which is not changed, or the text `module:callable`, whose callable returns one or
    (module, example). example: a tensor, a sequence of them, or a mapping by parameter name; shapes: input name → shape
    instead. Raises ModelError if the module cannot be exported or its ONNX model computes something else, BackendError
    if PyTorch is missing, UsageError, StaleError, OutputError.
    """
    target = writable_target(output, force)
    require_torch()
    chosen = checked_options(options, TorchOptions)
    if isinstance(module, str):
        module, own_example = load_torch(module)
        example = own_example if example is None and not shapes else example
    if not hasattr(module, "forward"):
        raise UsageError(
            f"the model is of type {type(module).__name__}, not a torch.nn.Module",
            remedy="give a module, or the text module:callable",
        )
    named = as_named_shapes(shapes)
    return export_and_check(
        lambda folder: torch_exported(module, example, named, chosen, folder), target, chosen.tolerance, force
    )


@takes_fields(TfOptions)
def from_tf(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    shapes: Mapping[str, Shape | tuple[int, ...]] | None = None,
    options: TfOptions | None = None,
    force: bool = False,
    **_: Unpack[TfFields],
) -> Imported:
    """Convert a TensorFlow SavedModel or a Keras model (.keras, .h5) to ONNX. shapes: for axes of unknown size.

    Raises ModelError, BackendError if TensorFlow or tf2onnx is missing, UsageError, StaleError, OutputError.
    """
    target, chosen, named = writable_target(output, force), checked_options(options, TfOptions), as_named_shapes(shapes)
    return export_and_check(
        lambda folder: tf_exported(Path(source), named, chosen, folder), target, chosen.tolerance, force
    )


@takes_fields(TfliteOptions)
def from_tflite(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    options: TfliteOptions | None = None,
    force: bool = False,
    **_: Unpack[TfliteFields],
) -> Imported:
    """Convert a TFLite model to ONNX. A quantized one is refused, or becomes float with `dequantize`.

    Raises ModelError, BackendError if TensorFlow or tf2onnx is missing, StaleError, OutputError.
    """
    target, chosen = writable_target(output, force), checked_options(options, TfliteOptions)
    return export_and_check(
        lambda folder: tflite_exported(Path(source), chosen, folder), target, chosen.tolerance, force
    )


def writable_target(output: str | os.PathLike[str], force: bool) -> Path:
    """Return the path to write, checked before any work is done. StaleError, OutputError."""
    target = Path(output)
    check_destinations([target], force=force)
    return target


def as_named_shapes(shapes: Mapping[str, Shape | tuple[int, ...]] | None) -> dict[str, Shape]:
    """Return the shapes, plain tuples as float32 shapes."""
    return {n: s if isinstance(s, Shape) else Shape(tuple(s)) for n, s in (shapes or {}).items()}


def export_and_check(export: Callable[[Path], Exported], target: Path, tolerance: float, force: bool) -> Imported:
    """Export into a scratch folder beside the target, clean, check, compare, and only then write the target."""
    with scratch_folder(target) as folder:
        found = export(folder)
        proto = clean_copy(load_model(found.path), fixed_batch=found.fixed_batch)
        whole = folder / "plain.onnx"
        write_model(proto, folder, whole)
        check_valid_onnx(whole, found)
        model = load_model(whole)
        compared = check_outputs(model, found, tolerance)
        unchecked = found.unchecked if compared else f"{found.unchecked}; {try_alone(model).text}"
        files = write_model(model.proto, folder, target, force=force)
    return Imported(
        files,
        found.source,
        found.exporter,
        model.opset,
        model.inputs,
        model.outputs,
        compared,
        unchecked,
        (*found.notes, *fixed_batch_notes(model)),
    )


@contextlib.contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """Create a folder beside the target for what exporters write, and remove it afterwards. OutputError."""
    with contextlib.ExitStack() as held:
        try:
            folder = held.enter_context(staging_folder(target.parent))
        except OSError as error:
            raise write_failure(target, error) from None
        yield folder


def check_valid_onnx(path: Path, found: Exported) -> None:
    """Raise ModelError if the exporter has not written valid ONNX."""
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(
            f"{found.exporter} of {found.source} did not write valid ONNX: {first_line(error)}",
            remedy="try another version of the exporter, or another --opset",
        ) from None


def fixed_batch_notes(model: Model) -> tuple[str, ...]:
    """Return a note for each input whose batch is fixed."""
    fixed = [i for i in model.inputs if i.fixed_batch is not None]
    notes = [f"the batch of {i.name} is fixed at {i.fixed_batch}" for i in fixed]
    return tuple(notes)
