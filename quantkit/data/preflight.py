"""The preflight check: warnings if the first batches do not look like what a network expects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from quantkit.data.batches import batch_axis_of
from quantkit.data.feed import Portion, arrays_digest
from quantkit.preprocess import Preprocess
from quantkit.values import Array

WATCHED = 2
"""Batches that are checked."""
TELLING = 8
"""Samples with fewer values can be equal by chance."""


def preflight(portions: Sequence[Portion], spec: Preprocess | None) -> tuple[str, ...]:
    """Return warnings about the first portions of a data set; empty if nothing looks wrong.

    They report data that was not normalised, is constant, all equal or duplicated, or has channel means far from zero
    although the spec centres them.
    """
    warnings: list[str] = []
    for name in portions[0].batch if portions else ():
        found = [(p.batch[name], batch_axis_of(p.batch[name], p.axes.get(name, 0), p.samples)) for p in portions]
        arrays = [np.moveaxis(array, axis, 0) for array, axis in found if axis is not None]
        if len(arrays) == len(portions) and arrays[0].dtype.kind == "f":
            warnings.extend(input_warnings(arrays, name, spec))
    return tuple(warnings)


def input_warnings(arrays: Sequence[Array], name: str, spec: Preprocess | None) -> Iterator[str]:
    """Yield the warnings about one input."""
    samples = [sample.reshape(-1).astype(np.float32) for array in arrays for sample in array if sample.size]
    if not samples:
        return
    low, high = float(min(s.min() for s in samples)), float(max(s.max() for s in samples))
    constant = sum(s.size > 1 and s.min() == s.max() for s in samples)
    digests = {arrays_digest([s]) for s in samples}
    telling = samples[0].size >= TELLING
    if low == high and samples[0].size > 1:
        yield f"input {name!r}: every value is {low:g}; this is not real data"
        return
    if constant:
        yield f"input {name!r}: {constant} of the first {len(samples)} samples are constant"
    if telling and len(digests) == 1 and len(samples) > 1:
        yield f"input {name!r}: the first {len(samples)} samples are all equal"
    elif telling and len(digests) < len(samples):
        yield f"input {name!r}: {len(samples) - len(digests)} of the first {len(samples)} samples are duplicates"
    if low >= 0.0 and high > 32.0 and arrays[0].ndim == 4:
        yield (
            f"input {name!r}: values lie in {low:g} … {high:g}; if the network was trained on normalised images, "
            "give its preprocessing with --preprocess"
        )
    elif spec is not None and any(spec.mean):
        yield from centre_warnings(name, arrays, spec)


def centre_warnings(name: str, arrays: Sequence[Array], spec: Preprocess) -> Iterator[str]:
    """Yield a warning if channel means are far from zero although the spec centres them."""
    axis = 1 if spec.layout == "nchw" else 3
    channels = [np.moveaxis(a, axis, 0).reshape(a.shape[axis], -1).astype(np.float64) for a in arrays]
    values = np.concatenate(channels, axis=1)
    means, spread = values.mean(axis=1), float(values.std())
    if np.abs(means).max() > 1.5 * max(spread, 1e-6) or np.abs(means).max() > 2.0 * max(1.0, spread):
        shown = ", ".join(f"{m:.2f}" for m in means)
        yield f"input {name!r}: channel means are {shown} after normalisation; does the spec fit these images?"
