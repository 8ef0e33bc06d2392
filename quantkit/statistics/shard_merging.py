"""Merging the statistics of all shards of a run into those of the run that was not divided, byte for byte.

A tensor may have values in some shards only (the boxes of a detector that found none): such a shard has no histogram of
it, and the order of the tensors is that of the record.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from quantkit.artifact import sha256_of
from quantkit.errors import ShardError, StatisticsError
from quantkit.histogram import merge_histograms
from quantkit.sharding import ShardRecord, order_shards
from quantkit.statistics.grids import ShardGrids, grids_of, refuse_other_grids
from quantkit.statistics.merging import join_origins, join_samples, merge_channels, refuse_other_origin
from quantkit.statistics.seams import join_histograms
from quantkit.statistics.statistics import Channels, Statistics


def merge_shards(parts: Iterable[tuple[str, Statistics]]) -> Statistics:
    """Return the statistics of a run from all its shards, in any order: the same bytes as those of one run.

    parts: each with its name for errors; one is held at a time, in `tensorrt` mode if they come in order. ShardError
    where a shard is missing, there twice, no shard, or of another run; StatisticsError where they cannot be merged.
    """
    merger = ShardMerger()
    for name, part in parts:
        merger.add(name, part)
    return merger.merged()


class ShardMerger:
    """An accumulator of the shards of a run. In `tensorrt` mode only neighbours are joined, as soon as both are there.

    `add` and `merged` raise what `merge_shards` raises.
    """

    def __init__(self) -> None:
        self._records: dict[str, ShardRecord] = {}
        self._grids: dict[str, ShardGrids] = {}
        self._chains: dict[str, bytes] = {}
        self._runs: dict[int, tuple[int, Statistics]] = {}
        """First shard of neighbours that were joined → the shard behind the last, and their statistics."""

    def add(self, name: str, part: Statistics) -> None:
        """Add a shard; `name` is for errors."""
        record = part.shard
        if record is None or part.chain is None:
            raise ShardError(f"{name} is no shard", remedy="merge either the shards of one run, or whole statistics")
        if name in self._records:
            raise ShardError(f"{name} is given twice", remedy="give every shard once")
        joined = {found.index for found in self._records.values()}
        foreign = any(found.identity.digest != record.identity.digest for found in self._records.values())
        self._records[name], self._chains[name] = record, part.chain
        if foreign or record.index in joined:
            return  # `merged` says so, when it knows what is usual
        start, stop, whole = record.index, record.index + 1, part
        if part.seams is None:
            start = stop = 0
            if self._runs:
                whole = join_shards(self._runs[0][1], part)
        else:
            self._grids[name] = grids_of(part)
            before = next((first for first, (behind, _) in self._runs.items() if behind == start), None)
            if before is not None:
                start, whole = before, join_shards(self._runs.pop(before)[1], whole)
            if stop in self._runs:
                behind, later = self._runs.pop(stop)
                stop, whole = behind, join_shards(whole, later)
        self._runs[start] = stop, whole

    def merged(self) -> Statistics:
        """Return the statistics of the run."""
        names = order_shards(self._records)
        if self._grids:
            refuse_other_grids({name: self._grids[name] for name in names}, self._records)
        _, whole = self._runs[0]
        origin = whole.origin
        if origin.order is not None:
            origin = origin.model_copy(update={"order": self.order()})
        return replace(whole, shard=None, chain=None, seams=None, origin=origin)

    def order(self) -> str:
        """Return the sha256 over the samples of the run in order, batch by batch, when all shards are there."""
        return sha256_of(b"".join(self._chains[name] for name in order_shards(self._records)))


def join_shards(a: Statistics, b: Statistics) -> Statistics:
    """Return two shards of a run together; in `tensorrt` mode, `b` directly after `a`. StatisticsError.

    Whether they were counted on the same grids is only known when all shards are there (`refuse_other_grids`).
    """
    assert a.shard is not None
    watched = a.shard.watched
    refuse_other_origin(a, b)
    if gone := {*a.unscalable, *b.unscalable}:
        a, b = a.without(gone), b.without(gone)
    histograms = {**b.histograms, **a.histograms}
    seams = None if a.seams is None or b.seams is None else {**b.seams, **a.seams}
    for name in a.histograms.keys() & b.histograms.keys():
        left, right = a.histograms[name], b.histograms[name]
        if a.seams is None or b.seams is None or seams is None:
            histograms[name] = merge_histograms(left, right)
        else:
            histograms[name], seams[name] = join_histograms(left, a.seams[name], right, b.seams[name])
    return replace(
        a,
        histograms={name: histograms[name] for name in watched if name in histograms},
        channels=join_channels(a, b),
        shared={**a.shared, **b.shared},
        origin=join_origins(a.origin, b.origin),
        samples=join_samples([a, b]),
        seams=seams,
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
