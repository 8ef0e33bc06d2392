"""Shapes that a network is compiled for: one for each input, so that the size of every tensor is known."""

from __future__ import annotations

from collections.abc import Sequence

from quantkit.backends.tensorrt.shapes import EXAMPLE_LENGTH, EXAMPLE_SIDE, read_given_shapes
from quantkit.backends.tensorrt_rtx.compiling import Shapes
from quantkit.values import ModelInput


def static_shapes(inputs: Sequence[ModelInput], given: Sequence[str] = (), batch: int = 1) -> Shapes:
    """Return a shape for every input; of a range, the best one. given: as `build --shapes` takes them. UsageError.

    Where none is given, a dynamic batch is `batch`, and other dynamic sizes are those of a usual image or text; sizes
    with the same symbol are equal. `chosen_shapes` names the inputs that are concerned.
    """
    shapes = {name: found.best for name, found in read_given_shapes(given, inputs).items()}
    sizes = {symbol: size for i in inputs for symbol, size in zip(i.shape, shapes.get(i.name, ()), strict=False)}
    open_inputs = [i for i in inputs if i.name not in shapes]
    for batches in (True, False):
        for i in open_inputs:
            for axis, symbol in enumerate(i.shape):
                if symbol is not None and is_batch(i, axis) == batches:
                    sizes.setdefault(symbol, usual_size(i, axis, batch))
    for i in open_inputs:
        shapes[i.name] = tuple(
            size if isinstance(size, int) else usual_size(i, axis, batch) if size is None else sizes[size]
            for axis, size in enumerate(i.shape)
        )
    return {i.name: shapes[i.name] for i in inputs}


def is_batch(wanted: ModelInput, axis: int) -> bool:
    """Return True for the axis of an input that counts samples; the first one where none does."""
    return axis == (wanted.batch_axis or 0)


def usual_size(wanted: ModelInput, axis: int, batch: int) -> int:
    """Return a usual size for a dynamic axis of an input."""
    if is_batch(wanted, axis):
        return batch
    return EXAMPLE_SIDE if len(wanted.shape) == 4 else EXAMPLE_LENGTH


def chosen_shapes(inputs: Sequence[ModelInput], given: Sequence[str] = (), batch: int = 1) -> tuple[str, ...]:
    """Return `name=1x3x224x224` for the inputs whose sizes, beyond the batch, were neither fixed nor given."""
    ranges, shapes = read_given_shapes(given, inputs), static_shapes(inputs, given, batch)
    return tuple(
        f"{i.name}={'x'.join(map(str, shapes[i.name]))}"
        for i in inputs
        if i.name not in ranges
        and any(not isinstance(size, int) and not is_batch(i, axis) for axis, size in enumerate(i.shape))
    )
