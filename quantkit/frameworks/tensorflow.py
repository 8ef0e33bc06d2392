"""Conversion of TensorFlow SavedModels and Keras models to ONNX, with TensorFlow itself as reference.

Both become one tf.function over named tensors, which tf2onnx converts and which is also the reference. (`from_keras` of
tf2onnx 1.17 fails on models of Keras 3, whose output tensors have different names.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quantkit.errors import ModelError, UsageError, first_line
from quantkit.frameworks import layout
from quantkit.frameworks.exported import Exported, Shape, example_input
from quantkit.frameworks.options import ConversionFields, ConversionOptions
from quantkit.frameworks.silence import silence
from quantkit.frameworks.tf2onnx import (
    ConversionSource,
    checked_opset,
    convert_with_tf2onnx,
    import_tensorflow,
    require_tensorflow,
)
from quantkit.paths import exists, is_folder
from quantkit.regular_file import refuse_irregular
from quantkit.values import Array, Batch

KERAS = (".keras", ".h5", ".hdf5")
SIGNATURE = "serving_default"
OpenShape = tuple[int | None, ...]
"""A shape with None for axes of unknown size."""


@dataclass(frozen=True, slots=True)
class TfOptions(ConversionOptions):
    """How a TensorFlow model is converted.

    opset: 13 … 18, default 17. signature: of a SavedModel. inputs_as_nchw: channels of image inputs become first.
    """

    signature: str | None = None
    inputs_as_nchw: bool = False


class TfFields(ConversionFields, total=False):
    """The keywords of `from_tf` that are fields of `TfOptions`."""

    signature: str | None
    inputs_as_nchw: bool


@dataclass(frozen=True, slots=True)
class TfNetwork:
    """A frozen value: a model as a function.

    call: tensors by position → outputs by name. inputs: name → shape and TensorFlow dtype. owner: the object that has
    to stay alive as long as `call` is used.
    """

    call: Callable[..., Mapping[str, Any]]
    inputs: Mapping[str, tuple[OpenShape, Any]]
    owner: Any


def export_tf(path: Path, shapes: Mapping[str, Shape], options: TfOptions, folder: Path) -> Exported:
    """Convert into `folder`. ModelError, UsageError, BackendError."""
    require_tensorflow()
    opset = checked_opset(options.opset)
    refuse_unknown_tf_model(path)
    tf = import_tensorflow()
    network = load_keras(path, options) if path.suffix in KERAS else load_saved_model(path, options)
    inputs = close_shapes(network.inputs, shapes, options.fixed_batch)
    example = {
        name: example_input(Shape(tuple(d or 1 for d in shape), np.dtype(dtype.as_numpy_dtype).name))
        for name, (shape, dtype) in inputs.items()
    }
    images = layout.image_inputs(example)
    turned = images if options.inputs_as_nchw else ()
    function, source = trace_network(path, network, inputs)
    tensors = {name: tensor for tensor, name in (source.names or {}).items()}
    target = folder / "model.onnx"
    exporter = convert_with_tf2onnx(source, target, opset, nchw=[tensors[name] for name in turned])
    return Exported(
        target,
        source=f"TensorFlow {tf.__version__}",
        exporter=exporter,
        example={n: layout.channels_first(a) if n in turned else a for n, a in example.items()},
        run=TfReference(function, turned, network),
        fixed_batch=options.fixed_batch,
        notes=() if turned else layout.nhwc_notes(images),
    )


@dataclass(frozen=True, slots=True)
class TfReference:
    """A frozen function that returns TensorFlow's own outputs; inputs in `turned` come with their channels first."""

    function: Any
    turned: tuple[str, ...]
    network: TfNetwork

    def __call__(self, batch: Batch) -> Sequence[Array]:
        """Return the outputs in the order of the ONNX model's."""
        import tensorflow as tf

        arrays = [layout.channels_last(a) if n in self.turned else a for n, a in batch.items()]
        found = self.function(*(tf.constant(array) for array in arrays))
        return [np.asarray(tensor) for tensor in tf.nest.flatten(found)]


def refuse_unknown_tf_model(path: Path) -> None:
    """Raise ModelError if `path` is neither a SavedModel nor a Keras file."""
    if is_folder(path):
        if not exists(path / "saved_model.pb"):
            raise ModelError(
                f"{path} is not a SavedModel: it has no saved_model.pb", remedy="give a SavedModel's folder"
            )
    elif not exists(path):
        raise ModelError(f"{path}: no such file or directory", remedy="give a SavedModel's folder, or a .keras file")
    elif path.suffix == ".tflite":
        raise ModelError(f"{path} is a TFLite model", remedy="convert it with quantkit from-tflite")
    elif path.suffix not in KERAS:
        raise ModelError(
            f"{path} is neither a SavedModel's folder nor {', '.join(KERAS)}",
            remedy="convert frozen graphs of TensorFlow 1 with python -m tf2onnx.convert",
        )


def load_saved_model(path: Path, options: TfOptions) -> TfNetwork:
    """Return a signature of a SavedModel. ModelError, UsageError."""
    import tensorflow as tf

    try:
        with silence():
            loaded = tf.saved_model.load(str(path))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{path}: {first_line(error)}", remedy="save it again with this TensorFlow") from error
    known = list(loaded.signatures)
    wanted = options.signature or (SIGNATURE if SIGNATURE in known else known[0] if len(known) == 1 else None)
    if not known:
        raise ModelError(f"{path} has no signature", remedy="save it with model.export(folder), or with signatures=…")
    if wanted not in known:
        problem = f"no signature {wanted!r}" if wanted else "several signatures"
        raise UsageError(f"{path} has {problem}: {', '.join(known)}", remedy=f"for example --signature {known[0]}")
    signature = loaded.signatures[wanted]
    specs = signature.structured_input_signature[1]
    names = tuple(specs)

    def call(*tensors: Any) -> Mapping[str, Any]:
        found: Mapping[str, Any] = signature(**dict(zip(names, tensors, strict=True)))
        return found

    return TfNetwork(
        call, {name: (open_shape(path, name, spec.shape), spec.dtype) for name, spec in specs.items()}, loaded
    )


def load_keras(path: Path, options: TfOptions) -> TfNetwork:
    """Return a Keras model. ModelError, UsageError."""
    import tensorflow as tf

    if options.signature is not None:
        raise UsageError(f"{path} is a Keras model and has no signatures", remedy="leave --signature out")
    try:
        if not is_folder(path):
            refuse_irregular(path)
        with silence():
            model = tf.keras.models.load_model(path, compile=False)
    except Exception as error:
        raise ModelError(
            f"{path} cannot be loaded: {first_line(error)}",
            remedy="if it has custom layers, load it in Python, call model.export(folder), and give that folder",
        ) from error
    if not getattr(model, "inputs", None):
        raise ModelError(
            f"{path} was never built: its inputs are unknown", remedy="call model.export(folder), and give that folder"
        )
    names = [str(tensor.name).partition(":")[0] for tensor in model.inputs]
    last = [model.layers[-1].name] if isinstance(model, tf.keras.Sequential) else []
    outputs = unique_output_names([str(name) for name in getattr(model, "output_names", last)], len(model.outputs))

    def call(*tensors: Any) -> Mapping[str, Any]:
        found = model(list(tensors) if len(tensors) > 1 else tensors[0], training=False)
        return dict(zip(outputs, tf.nest.flatten(found), strict=True))

    return TfNetwork(
        call,
        {
            name: (open_shape(path, name, tf.TensorShape(tensor.shape)), tf.as_dtype(tensor.dtype))
            for name, tensor in zip(names, model.inputs, strict=True)
        },
        model,
    )


def unique_output_names(names: list[str], count: int) -> list[str]:
    """Return the names of the outputs, or numbered ones if there is not one unique name for each."""
    if len(names) == count == len(set(names)):
        return names
    return ["output"] if count == 1 else [f"output_{i}" for i in range(count)]


def open_shape(path: Path, name: str, shape: Any) -> OpenShape:
    """Return a TensorShape as a tuple. ModelError if even the number of axes is unknown."""
    if shape.rank is None:
        raise ModelError(f"{path}: the shape of {name} is unknown", remedy="save it with a signature that has shapes")
    return tuple(shape.as_list())


def close_shapes(
    inputs: Mapping[str, tuple[OpenShape, Any]], shapes: Mapping[str, Shape], fixed_batch: int | None
) -> dict[str, tuple[OpenShape, Any]]:
    """Return shapes that are known up to the batch. UsageError if another axis stays unknown, or a given shape does not
    fit."""
    if unknown := [name for name in shapes if name not in inputs]:
        raise UsageError(f"the model has no input {unknown[0]!r}", remedy=f"the inputs are {', '.join(inputs)}")
    closed: dict[str, tuple[OpenShape, Any]] = {}
    for name, (shape, dtype) in inputs.items():
        given = shapes[name].dims if name in shapes else shape
        text = ",".join("?" if d is None else str(d) for d in shape)
        if len(given) != len(shape) or any(a not in (None, b) for a, b in zip(shape[1:], given[1:], strict=False)):
            raise UsageError(
                f"--shape {name} does not fit the model's [{text}]", remedy="give the batch and all other axes"
            )
        if None in given[1:]:
            example = ",".join(str(d or (1 if i == 0 else 224)) for i, d in enumerate(shape))
            raise UsageError(
                f"input {name} [{text}] has axes of unknown size", remedy=f"for example --shape {name}={example}"
            )
        first = (shape[0] if fixed_batch is None else fixed_batch,) if shape else ()
        closed[name] = ((*first, *given[1:]), dtype)
    return closed


def trace_network(
    path: Path, network: TfNetwork, inputs: Mapping[str, tuple[OpenShape, Any]]
) -> tuple[Any, ConversionSource]:
    """Return the model over named tensors, and its graph with the weights as constants. ModelError."""
    import tensorflow as tf
    from tf2onnx import tf_loader

    specs = [tf.TensorSpec(shape, dtype, name=name) for name, (shape, dtype) in inputs.items()]
    function = tf.function(network.call, input_signature=specs, autograph=False)
    try:
        with silence():
            concrete = function.get_concrete_function()
            taken = tuple(tensor.name for tensor in concrete.inputs[: len(specs)])
            made = tuple(tensor.name for tensor in concrete.outputs)
            graph = tf_loader.from_function(concrete, list(taken), list(made))
    except Exception as error:
        raise ModelError(
            f"{path} cannot be traced: {first_line(error)}",
            remedy="if its batch cannot be dynamic, give --fixed-batch 1; else model.export(folder), and give that",
        ) from error
    outputs = sorted(concrete.structured_outputs)
    names = dict(zip((*taken, *made), (*inputs, *outputs), strict=True))
    return function, ConversionSource(graph=graph, inputs=taken, outputs=made, names=names)
