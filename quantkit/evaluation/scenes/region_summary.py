"""The summary of changed regions: agreement of pixels, IoU by class, and the images to look at."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quantkit.evaluation import bootstrap
from quantkit.evaluation.class_drops import class_name
from quantkit.evaluation.object_changes import RegionChange, RegionChanges
from quantkit.evaluation.scenes.region_watch import ChangedMaps
from quantkit.metrics.objects.precision import mean_of_known
from quantkit.metrics.regions.overlap import MapOverlaps

Measured = tuple[MapOverlaps, MapOverlaps, NDArray[np.float64] | None, NDArray[np.float64] | None]
"""Labels with the reference's and with the candidate's regions, and the bootstrapped figures of both."""


def region_changes(
    changes: ChangedMaps,
    measured: Measured | None,
    names: Sequence[str],
    path: Callable[[str], Path | None],
    limit: int,
) -> RegionChanges:
    """Return how a candidate's regions differ from the reference's. measured: with labels. limit: most maps to keep."""
    overlaps = changes.overlaps
    ones = np.ones((1, overlaps.images))
    low = high = math.nan
    if overlaps.images > 1:
        drawn = bootstrap.replicate_set(lambda counts: overlaps.accuracy(counts)[:, None], overlaps.images)
        interval = bootstrap.percentile_interval(drawn[:, 0])
        low, high = interval.low, interval.high
    agreement = dict(zip(map(int, overlaps.classes), map(float, overlaps.class_ious(ones)[0]), strict=True))
    if measured is None:
        pixels = dict(zip(agreement, map(int, overlaps.pixels), strict=True))
        rows = [unlabelled(class_name(number, names), pixels[number], share) for number, share in agreement.items()]
        rows.sort(key=lambda row: row.agreement)
    else:
        rows = labelled(measured, agreement, names)
    return RegionChanges(
        names=tuple(class_name(number, names) for number in range(max(agreement, default=-1) + 1)),
        agreement=float(overlaps.accuracy(ones)[0]),
        low=low,
        high=high,
        mean_iou=float(mean_of_known(overlaps.class_ious(ones))[0]),
        classes=tuple(rows),
        maps=tuple(replace(found, path=path(found.sample)) for found in changes.most_changed(limit)),
    )


def unlabelled(name: str, pixels: int, agreement: float) -> RegionChange:
    """Return the row of a class without labels."""
    return RegionChange(name, pixels, agreement, *(math.nan,) * 5)


def labelled(measured: Measured, agreement: dict[int, float], names: Sequence[str]) -> list[RegionChange]:
    """Return a row for each class that occurs in labels or predictions, the largest drop first."""
    first, second, *drawn = measured
    ones = np.ones((1, first.images))
    before, after = (dict(zip(map(int, o.classes), o.class_ious(ones)[0], strict=True)) for o in (first, second))
    columns = [{int(number): at + 1 for at, number in enumerate(o.classes)} for o in (first, second)]
    pixels = dict(zip(map(int, first.classes), map(int, first.pixels), strict=True))
    rows = []
    for number in sorted({*before, *after}):
        old, new = float(before.get(number, math.nan)), float(after.get(number, math.nan))
        low = high = math.nan
        if drawn[0] is not None and drawn[1] is not None and number in columns[0] and number in columns[1]:
            apart = 100.0 * (drawn[0][:, columns[0][number]] - drawn[1][:, columns[1][number]])
            interval = bootstrap.percentile_interval(apart)
            low, high = interval.low, interval.high
        share = agreement.get(number, math.nan)
        name = class_name(number, names)
        rows.append(RegionChange(name, pixels.get(number, 0), share, old, new, 100.0 * (old - new), low, high))
    return sorted(rows, key=lambda row: -math.inf if math.isnan(row.drop) else row.drop, reverse=True)
