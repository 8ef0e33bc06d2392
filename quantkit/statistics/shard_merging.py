"""Merging the statistics of all shards of a run into those of the run that was not divided, byte for byte.

A tensor may have values in some shards only (the boxes of a detector that found none): such a shard has no histogram of
it, and the order of the tensors is that of the record.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from quantkit.errors import ShardError, StatisticsError
from quantkit.histogram import merge_histograms
from quantkit.sharding import ShardRecord, order_shards
from quantkit.statistics.merging import join_origins, join_samples, merge_channels, refuse_other_origin
from quantkit.statistics.statistics import Channels, Statistics


def merge_shards(parts: Iterable[tuple[str, Statistics]]) -> Statistics:
    """Return the statistics of a run from all its shards, in any order: the same bytes as those of one run.

    parts: each with its name for errors; one is held at a time. ShardError where a shard is missing, there twice, no
    shard, or of another run; StatisticsError where they cannot be merged.
    """
    records: dict[str, ShardRecord] = {}
    merged: Statistics | None = None
    for name, part in parts:
        if part.shard is None:
            raise ShardError(f"{name} is no shard", remedy="merge either the shards of one run, or whole statistics")
        if name in records:
            raise ShardError(f"{name} is given twice", remedy="give every shard once")
        records[name] = part.shard
        if merged is None:
            merged = part
        elif merged.shard and merged.shard.identity.digest == part.shard.identity.digest:
            merged = join_shards(merged, part)
    order_shards(records)
    assert merged is not None
    return replace(merged, shard=None)


def join_shards(a: Statistics, b: Statistics) -> Statistics:
    """Return two shards of a run together. StatisticsError."""
    assert a.shard is not None
    watched = a.shard.watched
    refuse_other_origin(a, b)
    if gone := {*a.unscalable, *b.unscalable}:
        a, b = a.without(gone), b.without(gone)
    histograms = {**b.histograms, **a.histograms}
    for name in a.histograms.keys() & b.histograms.keys():
        histograms[name] = merge_histograms(a.histograms[name], b.histograms[name])
    return replace(
        a,
        histograms={name: histograms[name] for name in watched if name in histograms},
        channels=join_channels(a, b),
        shared={**a.shared, **b.shared},
        origin=join_origins(a.origin, b.origin),
        samples=join_samples([a, b]),
    )


def join_channels(a: Statistics, b: Statistics) -> tuple[Channels, ...]:
    """Return the channel figures of both, in the order of the tensors. StatisticsError where channels differ."""
    assert a.shard is not None
    views = {(view.tensor, view.axis): view for view in a.channels}
    for view in b.channels:
        known = views.get((view.tensor, view.axis))
        if known is not None and len(known.sums) != len(view.sums):
            raise StatisticsError(
                f"tensor {view.tensor!r} has {len(known.sums)} channels in some shards, and {len(view.sums)} in others",
                remedy="calibrate without shards: the channels of that tensor depend on the sample",
            )
        views[view.tensor, view.axis] = view if known is None else merge_channels(known, view)
    place = {name: number for number, name in enumerate(a.shard.watched)}
    return tuple(sorted(views.values(), key=lambda view: place[view.tensor]))  # axes keep their order
