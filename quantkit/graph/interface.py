"""The interface of a model: inputs and outputs with types and shapes, and whether their first axis is the batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantkit.errors import ModelError
from quantkit.graph.model import DTYPES, Model, as_input
from quantkit.graph.shape_inference import shapes_for_inputs
from quantkit.values import ModelInput

if TYPE_CHECKING:
    import onnx

    Shape = tuple[int | str | None, ...]

REMEDY = "run onnx.shape_inference on the model, or export it again with its shapes"
FEW, MORE = 2, 3
"""Two batch sizes, which show what dimensions follow the batch."""


@dataclass(frozen=True, slots=True)
class Interface:
    """Inputs and outputs of a model. unbatched: why their first dimension is not the batch; empty if it is."""

    inputs: tuple[ModelInput, ...]
    outputs: tuple[ModelInput, ...]
    unbatched: str = ""


def read_interface(model: Model) -> Interface:
    """Return types and shapes of inputs and outputs. Shapes of outputs are inferred if the file does not declare them.

    ModelError if the rank or the type of one is unknown.
    """
    shaped = {value.name: value.type.tensor_type for value in model.proto.graph.input}
    for name in (i.name for i in model.inputs):
        if not shaped[name].HasField("shape"):
            raise ModelError(f"{model.path}: the shape of input {name!r} is unknown", remedy=REMEDY)
    few, more = (output_shapes(model, batch) for batch in (FEW, MORE))
    symbols = {i.shape[0] if i.shape else 0 for i in model.inputs}
    outputs, unbatched = [], unbatched_reason(model.inputs)
    for value in model.proto.graph.output:
        output, follows = as_output(model, value, few.get(value.name), more.get(value.name), symbols)
        outputs.append(output)
        if not follows and not unbatched:
            unbatched = f"the first dimension of output {value.name!r} is not known to be the batch"
    return Interface(model.inputs, tuple(outputs), unbatched)


def unbatched_reason(inputs: tuple[ModelInput, ...]) -> str:
    """Return why the first dimension of the inputs is not the batch; empty if it is."""
    for i in inputs:
        if not i.shape or isinstance(i.shape[0], int):
            return f"the batch of input {i.describe()} is fixed"
    if len({i.shape[0] for i in inputs if i.shape[0] is not None}) > 1:
        return "the first dimensions of the inputs have different names: " + ", ".join(i.describe() for i in inputs)
    return ""


def output_shapes(model: Model, batch: int) -> Mapping[str, tuple[int, ...] | None]:
    """Return the inferred shapes of the outputs for a batch size; empty if other dimensions of inputs are dynamic."""
    shapes: dict[str, tuple[int, ...]] = {}
    for i in model.inputs:
        shape = tuple(batch if k == 0 and not isinstance(s, int) else s for k, s in enumerate(i.shape))
        if not all(isinstance(size, int) for size in shape):
            return {}
        shapes[i.name] = tuple(size for size in shape if isinstance(size, int))
    return shapes_for_inputs(model, model.outputs, shapes)


def as_output(
    model: Model,
    value: onnx.ValueInfoProto,
    few: tuple[int, ...] | None,
    more: tuple[int, ...] | None,
    symbols: set[int | str | None],
) -> tuple[ModelInput, bool]:
    """Return an output, and whether its first dimension is the batch. few, more: its shapes for two batch sizes."""
    tensor = value.type.tensor_type
    if tensor.elem_type not in DTYPES:
        raise ModelError(f"{model.path}: the type of output {value.name!r} is unknown", remedy=REMEDY)
    declared: Shape | None = as_input(value).shape if tensor.HasField("shape") else None
    if few is not None and more is not None and len(few) == len(more):
        known = declared if declared and len(declared) == len(few) else (None,) * len(few)
        symbol = [None if isinstance(size, int) else size for size in known]
        shape: Shape = tuple(a if a == b else symbol[k] for k, (a, b) in enumerate(zip(few, more, strict=True)))
        follows = (few[:1], more[:1]) == ((FEW,), (MORE,))
    elif declared is not None:
        shape, first = declared, declared[0] if declared else None
        follows = isinstance(first, str) and first in symbols
    else:
        raise ModelError(f"{model.path}: the shape of output {value.name!r} is unknown", remedy=REMEDY)
    return ModelInput(value.name, DTYPES[tensor.elem_type], shape), follows
