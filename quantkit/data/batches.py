"""Batches of arrays: which axis of an input counts samples, and whether a batch is what the model takes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantkit.errors import DataError
from quantkit.kernel import extremes
from quantkit.values import Batch, ModelInput


def batch_axis_of(array: NDArray[Any], axis: int | None, count: int) -> int | None:
    """Return the axis along which an array holds `count` samples: `axis`, or None if it has another length."""
    return axis if axis is not None and array.ndim > axis and array.shape[axis] == count else None


def take_samples(array: NDArray[Any], axis: int | None, rows: Any) -> NDArray[Any]:
    """Return the samples `rows` (an index, a slice, an array of indices) of an array; all of it without an axis."""
    if axis is None:
        return array
    if axis == 0:
        part: NDArray[Any] = array[rows]
        return part
    return np.ascontiguousarray(array[(slice(None),) * axis + (rows,)])


def batch_lengths(batch: Batch, inputs: Sequence[ModelInput]) -> dict[str, int]:
    """Return the number of samples in every input that has a batch axis."""
    return {i.name: batch[i.name].shape[i.batch_axis] for i in inputs if i.batch_axis is not None and i.shape}


def samples_in(batch: Batch, inputs: Sequence[ModelInput]) -> int:
    """Return the number of samples in a checked batch: by an input with a dynamic batch, else by the longest."""
    lengths = batch_lengths(batch, inputs)
    dynamic = [lengths[i.name] for i in inputs if i.name in lengths and i.fixed_batch is None]
    return max(dynamic or lengths.values(), default=1)


def axes_of(inputs: Sequence[ModelInput]) -> dict[str, int | None]:
    """Return the batch axis of every input."""
    return {i.name: i.batch_axis if i.shape else None for i in inputs}


def stack_samples(samples: Sequence[Batch], axes: Mapping[str, int | None]) -> Batch:
    """Stack samples without the batch axis to one batch; what belongs to every batch is that of the first."""
    found = {name: axes.get(name, 0) for name in samples[0]}
    return {
        name: samples[0][name] if axis is None else np.stack([sample[name] for sample in samples], axis)
        for name, axis in found.items()
    }


def refuse_missing_inputs(arrays: Collection[str], inputs: Sequence[ModelInput], where: str) -> None:
    """Raise DataError unless there is an array for every input. arrays: their names."""
    missing = [i.name for i in inputs if i.name not in arrays]
    if missing:
        held = ", ".join(map(repr, arrays)) or "none"
        raise DataError(
            f"{where} has no array for input {', '.join(map(repr, missing))}; it has {held}",
            remedy="name the arrays as the model names its inputs (quantkit inspect MODEL)",
        )


def check_batch(batch: Batch, inputs: Sequence[ModelInput], where: str) -> Batch:
    """Return the batch as the model takes it: every input by name, shape, dtype, finite, C-contiguous. DataError."""
    refuse_missing_inputs(batch, inputs, where)
    out = {i.name: check_array(np.asarray(batch[i.name]), i, where) for i in inputs}
    lengths = batch_lengths(out, [i for i in inputs if i.fixed_batch is None])
    if len(set(lengths.values())) > 1:
        raise DataError(
            f"{where}: the inputs disagree about the batch size: {lengths}",
            remedy="give as many samples of each; where one has no batch axis, call the batch dimension of the others "
            "`batch` in the model",
        )
    return out


def check_array(array: NDArray[Any], wanted: ModelInput, where: str) -> NDArray[Any]:
    """Return one input's array, checked against the model. DataError."""
    name = f"{where}, input {wanted.name!r}"
    agree = array.ndim == len(wanted.shape) and all(
        not isinstance(want, int) or want == have for want, have in zip(wanted.shape, array.shape, strict=True)
    )
    if not agree:
        remedy = "for images as arrays, give --preprocess, for example imagenet; other arrays need the model's shape"
        if axes_of([wanted])[wanted.name] is None:
            remedy = "it has no batch axis: give one array of this shape, which belongs to every batch"
        raise DataError(
            f"{name} is {array.dtype} {list(array.shape)}, but the model takes {wanted.describe()}", remedy=remedy
        )
    unknown = array.dtype.kind == "f" and not all_finite(array)
    if unknown and not (wanted.mask and not np.isnan(array).any()):
        several = array.ndim > 0 and len(array) > 1  # a single sample is named by `where`, as file.npz[5]
        row = int(np.argmin(np.isfinite(array.reshape(len(array), -1)).all(axis=1))) if several else 0
        raise DataError(
            f"{name} holds NaN or Inf" + (f" in sample {row}" if several else ""), remedy="fix or remove that sample"
        )
    return cast_exactly(array, np.dtype(wanted.dtype), name)


def all_finite(array: NDArray[Any]) -> bool:
    """Return whether an array of floats holds neither NaN nor Inf; one pass where the kernel can."""
    if array.dtype == np.float32 and array.flags.c_contiguous:
        return bool(extremes(array)[2])
    return bool(np.isfinite(array).all())


def cast_exactly(array: NDArray[Any], dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    """Return the array in the input's type. DataError where values would change by more than rounding."""
    refusal = DataError(
        f"{name} is {array.dtype}, but the model takes {dtype}: values would change",
        remedy=f"save the array as {dtype}",
    )
    if array.dtype == dtype and dtype.kind in "biuf":
        return np.asarray(array, order="C")
    floats = array.dtype.kind == "f" and dtype.kind == "f"
    if array.dtype.kind not in "biuf" or (array.dtype.kind == "f" and not floats):
        raise refusal
    with np.errstate(over="ignore"):
        cast = np.asarray(array, dtype=dtype, order="C")
    kept = (np.isfinite(cast) | ~np.isfinite(array)).all() if dtype.kind == "f" else (cast == array).all()
    if not kept:
        raise refusal
    return cast
