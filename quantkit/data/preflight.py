"""Does the data look like what a network expects? Questions to the first batches, answered as warnings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from quantkit.data.feed import batch_digests
from quantkit.preprocess import Preprocess
from quantkit.values import Array, Batch

WATCHED = 2
"""Batches that are looked at."""


def preflight(batches: Sequence[Batch], spec: Preprocess | None) -> tuple[str, ...]:
    """Warnings about the first batches of a data set; empty where nothing looks wrong.

    Never normalised, constant, all equal, duplicated, or channel means far from zero although the spec centres them.
    """
    return tuple(warning for name in (batches[0] if batches else ()) for warning in of_input(batches, name, spec))


def of_input(batches: Sequence[Batch], name: str, spec: Preprocess | None) -> Iterator[str]:
    """The warnings about one input."""
    arrays = [batch[name] for batch in batches]
    if arrays[0].dtype.kind != "f" or not arrays[0].ndim:
        return
    samples = np.concatenate([a.reshape(len(a), -1) for a in arrays]).astype(np.float32)
    low, high = float(samples.min()), float(samples.max())
    constant = int((samples.max(axis=1) == samples.min(axis=1)).sum())
    digests = [digest for array in arrays for digest in batch_digests({name: array})]
    if low == high:
        yield f"input {name!r}: every value is {low:g}; this is no data"
        return
    if constant:
        yield f"input {name!r}: {constant} of the first {len(samples)} samples are constant"
    if len(set(digests)) == 1 and len(digests) > 1:
        yield f"input {name!r}: the first {len(digests)} samples are all equal"
    elif len(set(digests)) < len(digests):
        yield f"input {name!r}: {len(digests) - len(set(digests))} of the first {len(digests)} samples are duplicates"
    if low >= 0.0 and high > 32.0 and arrays[0].ndim == 4:
        yield (
            f"input {name!r}: values lie in {low:g} … {high:g}; if the network was trained on normalised images, "
            "name its preprocessing with --preprocess"
        )
    elif spec is not None and any(spec.mean):
        yield from off_centre(name, np.concatenate(arrays), spec)


def off_centre(name: str, images: Array, spec: Preprocess) -> Iterator[str]:
    """Channel means far from zero where the spec is meant to centre them."""
    axes = (0, 2, 3) if spec.layout == "nchw" else (0, 1, 2)
    means, spread = images.mean(axis=axes, dtype=np.float64), float(images.std(dtype=np.float64))
    if np.abs(means).max() > 1.5 * max(spread, 1e-6) or np.abs(means).max() > 2.0 * max(1.0, spread):
        shown = ", ".join(f"{m:.2f}" for m in means)
        yield f"input {name!r}: channel means are {shown} after normalisation; does the spec fit these images?"
