"""Grids: whether the shards of a run were counted from the same first ranges, in `tensorrt` mode.

The bins of a tensor come from its first range in the whole run. Whether every shard knew that is seen when all are
there, because the first shard in which the tensor is not zero holds it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantkit.errors import StatisticsError
from quantkit.sharding import Shard, ShardRecord
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
    firsts = {name: seam.first for name, seam in (part.seams or {}).items() if seam.first}
    return ShardGrids(ranges, firsts, frozenset(part.unscalable))


class OtherRangesError(StatisticsError):
    """Shards of a run were counted from other first ranges than the run's own; their histograms cannot be joined.

    shards: the names of those to run again. first_ranges: the run's own, of all tensors that have one. run: its digest.
    """

    def __init__(self, problem: str, shards: Mapping[str, Shard], first_ranges: Mapping[str, float], run: str) -> None:
        lines = [f"{name}: --shard {shard}" for name, shard in shards.items()]
        super().__init__(
            problem,
            details=[*lines[:SHOWN], *([f"… and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else [])],
            remedy="run these shards again, from the first ranges of the run",
        )
        self.shards, self.first_ranges, self.run = tuple(shards), dict(first_ranges), run


def refuse_other_grids(grids: Mapping[str, ShardGrids], records: Mapping[str, ShardRecord]) -> None:
    """Raise OtherRangesError unless every shard of a run, by name and in order, was counted on the run's own grids."""
    gone = frozenset[str]().union(*(shard.unscalable for shard in grids.values()))
    holders: dict[str, str] = {}
    first_ranges: dict[str, float] = {}
    wrong: dict[str, list[str]] = {}
    for shard, found in grids.items():
        for tensor in found.ranges.keys() - gone:
            holders.setdefault(tensor, shard)
            first = first_ranges.setdefault(tensor, found.firsts[tensor])
            if not on_one_grid(first, found.ranges[tensor]):
                wrong.setdefault(tensor, []).append(shard)
    if wrong:
        faulty = {name: records[name].shard for name in grids if any(name in each for each in wrong.values())}
        run = records[next(iter(faulty))].identity.digest
        raise OtherRangesError(describe_wrong(wrong, holders), faulty, first_ranges, run)


def describe_wrong(wrong: Mapping[str, Sequence[str]], holders: Mapping[str, str]) -> str:
    """Return what is wrong as text, about the first tensor. wrong: shards by tensor; holders: of its first values."""
    tensor = min(wrong)
    count = f"{len(wrong[tensor])} shards" if len(wrong[tensor]) > 1 else wrong[tensor][0]
    others = len(wrong) - 1
    more = f"; the same holds for {others} more tensor{'s' * (others > 1)}" if others else ""
    return (
        f"tensor {tensor!r} has its first values in {holders[tensor]}, and {count} counted it from another range, "
        f"whose bins do not fit{more}"
    )
