"""Merging statistics of parts of a data set, where the result is exact."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from quantkit import histogram
from quantkit.errors import StatisticsError
from quantkit.histogram import HistogramMode
from quantkit.kernel import merge_sums
from quantkit.statistics.statistics import Channels, Origin, Statistics

if TYPE_CHECKING:
    from numpy.typing import NDArray

MODULUS = 1 << 256


def merge_statistics(
    parts: Sequence[Statistics], *, allow_duplicates: bool = False, names: Sequence[str] = ()
) -> Statistics:
    """Return the statistics of all parts together: the same bytes as those of one run over all samples.

    allow_duplicates: a sample that is in several parts counts once for each of them. names: of the parts, for errors.
    StatisticsError where parts are of `tensorrt` mode (their ranges depend on the first batch), have different models,
    preprocessing or backends, or have samples in common that are not allowed.
    """
    if not parts:
        raise StatisticsError("nothing to merge", remedy="give at least one statistics file")
    if any(p.origin.histogram is not HistogramMode.INVARIANT for p in parts):
        raise StatisticsError(
            "statistics of tensorrt mode cannot be merged: their ranges depend on which batch came first",
            remedy="calibrate the parts as shards of one run with --shard, or with --histogram invariant",
        )
    gone = {name for part in parts for name in part.unscalable}
    parts = [part.without(gone) for part in parts] if gone else parts
    for part in parts[1:]:
        refuse_other_origin(parts[0], part)
        if watched_views(part) != watched_views(parts[0]):
            raise StatisticsError("the parts watch different tensors", remedy="use the same quantkit for all parts")
    if not allow_duplicates:
        refuse_common_samples(parts, names or [f"part {number}" for number in range(1, len(parts) + 1)])
    return reduce(merge_pair, parts)


def refuse_other_origin(ours: Statistics, theirs: Statistics) -> None:
    """Raise StatisticsError where two parts have different models, preprocessing or backends."""
    for name in ("model", "preprocess", "backend", "slice"):
        mine, other = getattr(ours.origin, name), getattr(theirs.origin, name)
        if mine != other:
            raise StatisticsError(
                f"the parts differ in {name}: {mine} and {other}",
                remedy="calibrate all parts with the same model and options",
            )


def refuse_common_samples(parts: Sequence[Statistics], names: Sequence[str]) -> None:
    """Raise StatisticsError where a sample is in two parts; of files of quantkit 0.1 only whole parts are compared."""
    remedy = "give every part once, alone or merged; if the data hold equal samples, allow them with --allow-duplicates"
    wholes: dict[str, str] = {}
    for part, name in zip(parts, names, strict=True):
        if part.origin.data in wholes:
            same = f"{wholes[part.origin.data]} and {name} hold the same samples"
            raise StatisticsError(f"{same}, which would count twice", remedy=remedy)
        wholes[part.origin.data] = name
    known = [(name, np.unique(p.samples)) for p, name in zip(parts, names, strict=True) if p.samples is not None]
    everything, counts = np.unique(
        np.concatenate([np.array([], np.uint64), *(samples for _, samples in known)]), return_counts=True
    )
    common = everything[counts > 1]
    if common.size:
        holders = [name for name, samples in known if np.isin(common, samples).any()]
        raise StatisticsError(
            f"{', '.join(holders[:-1])} and {holders[-1]} have {common.size} of {everything.size} samples in common, "
            "which would count twice",
            remedy=remedy,
        )


def join_samples(parts: Sequence[Statistics]) -> NDArray[np.uint64] | None:
    """Return the samples of all parts as far as they are known, ascending."""
    known = [part.samples for part in parts if part.samples is not None]
    return np.sort(np.concatenate(known), kind="stable") if known else None  # merges what is sorted already


def watched_views(part: Statistics) -> tuple[object, ...]:
    """Return the tensors and channels of a part, in order."""
    return list(part.histograms), [(v.tensor, v.axis, len(v.sums)) for v in part.channels], dict(part.shared)


def merge_pair(a: Statistics, b: Statistics) -> Statistics:
    """Return two parts together, of which each has the same tensors."""
    return Statistics(
        {n: histogram.merge_histograms(h, b.histograms[n]) for n, h in a.histograms.items()},
        tuple(merge_channels(x, y) for x, y in zip(a.channels, b.channels, strict=True)),
        a.shared,
        join_origins(a.origin, b.origin),
        join_samples([a, b]),
        a.unscalable,
    )


def join_origins(a: Origin, b: Origin) -> Origin:
    """Return the origin of two parts together; data, samples and batches add up."""
    data = (int(a.data, 16) + int(b.data, 16)) % MODULUS
    batches = None if a.batches is None or b.batches is None else a.batches + b.batches
    return a.model_copy(update={"data": format(data, "064x"), "samples": a.samples + b.samples, "batches": batches})


def merge_channels(a: Channels, b: Channels) -> Channels:
    """Return the channel figures of two parts together."""
    return Channels(
        a.tensor,
        a.axis,
        np.minimum(a.minimum, b.minimum),
        np.maximum(a.maximum, b.maximum),
        merge_sums(a.sums, b.sums),
        a.elements + b.elements,
        a.gain,
    )
