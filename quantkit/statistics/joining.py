"""Joining shards in the order of their batches, in `tensorrt` mode: histograms and seams of neighbours, and grids.

Shards have to have counted each tensor on the grid of its first range in the whole run. Whether they did is known when
all are there: the first range is in the first shard in which the tensor is not zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantkit.errors import StatisticsError
from quantkit.statistics.seams import on_one_grid

if TYPE_CHECKING:
    from quantkit.statistics.statistics import Statistics

SHOWN = 20


@dataclass(frozen=True, slots=True)
class ShardGrids:
    """The ranges of a shard's tensors, each on the grid that it was counted on, and those of its own first batches.

    Tensors that are zero throughout the shard are in neither. unscalable: tensors that no scale represents.
    """

    ranges: Mapping[str, float]
    firsts: Mapping[str, float]
    unscalable: frozenset[str]


def grids_of(part: Statistics) -> ShardGrids:
    """Return the grids of a shard."""
    ranges = {name: h.range for name, h in part.histograms.items() if h.range}
    firsts = {name: seam.first for name, seam in (part.seams or {}).items()}
    return ShardGrids(ranges, firsts, frozenset(part.unscalable))


def other_grid_tensors(a: Statistics, b: Statistics) -> frozenset[str]:
    """Return the tensors that two shards counted on different grids, so that they cannot be joined."""
    theirs = {name: h.range for name, h in b.histograms.items()}
    return frozenset(n for n, h in a.histograms.items() if not on_one_grid(h.range, theirs.get(n, 0.0)))


def refuse_other_grids(shards: Mapping[str, ShardGrids]) -> None:
    """Raise StatisticsError unless every shard of a run, by name and in order, was counted on the run's own grids."""
    gone = frozenset[str]().union(*(shard.unscalable for shard in shards.values()))
    settled: dict[str, tuple[str, float]] = {}
    wrong: dict[str, list[str]] = {}
    for shard, grids in shards.items():
        for tensor, range_ in grids.ranges.items():
            if tensor in gone:
                continue
            _, first = settled.setdefault(tensor, (shard, grids.firsts[tensor]))
            if not on_one_grid(first, range_):
                wrong.setdefault(tensor, []).append(shard)
    if wrong:
        raise other_grids(wrong, {tensor: settled[tensor][0] for tensor in wrong}, list(shards))


def other_grids(
    wrong: Mapping[str, Sequence[str]], settled: Mapping[str, str], shards: Sequence[str]
) -> StatisticsError:
    """Return the error about shards that were counted from other first ranges; `settled` says where those are."""
    tensor = next(iter(wrong))
    faulty = [shard for shard in shards if any(shard in each for each in wrong.values())]
    more = f", and {len(wrong) - 1} more tensors likewise" if len(wrong) > 1 else ""
    own = [shard for shard in faulty if any(settled[name] == shard for name, each in wrong.items() if shard in each)]
    first_ranges = "without --first-ranges, on machines of one kind" if own else "with --first-ranges FOLDER --force"
    return StatisticsError(
        f"{settled[tensor]} holds the first values of tensor {tensor!r}, and {some_of(wrong[tensor])} counted it under "
        f"another first range{more}: TensorRT's histogram cannot be put together",
        details=faulty[:SHOWN] + ([f"… and {len(faulty) - SHOWN} more"] if len(faulty) > SHOWN else []),
        remedy=f"calibrate {'these shards' if len(faulty) > 1 else faulty[0]} again {first_ranges}",
    )


def some_of(names: Sequence[str]) -> str:
    """Return names as text, the first and the number of the others."""
    return names[0] if len(names) == 1 else f"{len(names)} later shards"
