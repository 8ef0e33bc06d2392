"""Shapes that a network is compiled for: one for each input, so that the size of every tensor is known."""

from __future__ import annotations

from collections.abc import Sequence

from quantkit.backends.tensorrt.shapes import EXAMPLE_LENGTH, EXAMPLE_SIDE, read_given_shapes
from quantkit.backends.tensorrt_rtx.compiling import Shapes
from quantkit.values import ModelInput


def static_shapes(inputs: Sequence[ModelInput], given: Sequence[str] = (), batch: int = 1) -> Shapes:
    """Return a shape for every input; of a range, the best one. given: as `build --shapes` takes them. UsageError.

    Where none is given, a dynamic batch is `batch`, and other dynamic sizes are those of a usual image or text;
    `chosen_shapes` names the inputs that are concerned.
    """
    ranges = read_given_shapes(given, inputs)
    return {i.name: ranges[i.name].best if i.name in ranges else usual_shape(i, batch) for i in inputs}


def usual_shape(wanted: ModelInput, batch: int) -> tuple[int, ...]:
    """Return the shape of an input with usual sizes in place of the dynamic ones."""
    other = EXAMPLE_SIDE if len(wanted.shape) == 4 else EXAMPLE_LENGTH
    return tuple(
        size if isinstance(size, int) else batch if axis == (wanted.batch_axis or 0) else other
        for axis, size in enumerate(wanted.shape)
    )


def chosen_shapes(inputs: Sequence[ModelInput], given: Sequence[str] = ()) -> tuple[str, ...]:
    """Return `name=1x3x224x224` for the inputs whose sizes, beyond the batch, were neither fixed nor given."""
    ranges = read_given_shapes(given, inputs)
    found = []
    for i in inputs:
        dynamic = [axis for axis, size in enumerate(i.shape) if not isinstance(size, int)]
        if i.name not in ranges and any(axis != (i.batch_axis or 0) for axis in dynamic):
            found.append(f"{i.name}={'x'.join(map(str, usual_shape(i, 1)))}")
    return tuple(found)
