"""The first ranges of a run, in a file beside its shards, in `tensorrt` mode.

A shard learns the first ranges from the leading batches. Where these are not enough, merging finds the shards that were
counted from others, and writes this file; the same command again then replaces them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from quantkit.artifact import canonical_json, text_bytes
from quantkit.document import DocumentType
from quantkit.errors import StaleError, StatisticsError
from quantkit.frozen_record import FrozenRecord
from quantkit.sharding import RunIdentity
from quantkit.sharding.folder import ShardFolder, place_of
from quantkit.statistics import Statistics
from quantkit.statistics.grids import OtherRangesError
from quantkit.statistics.seams import on_one_grid

NAME = "first-ranges.json"
REMEDY = "remove it; merging the shards makes it again where it is needed"


class FirstRangesDocument(FrozenRecord):
    """The content of the file. run: digest of the run. ranges: max|x| of the first batch in which a tensor is not 0."""

    format: Literal[1] = 1
    run: str
    ranges: dict[str, Annotated[float, Field(gt=0.0, lt=2.0**128)]]


DOCUMENT: DocumentType[FirstRangesDocument] = DocumentType(
    FirstRangesDocument, "a list of first ranges", StatisticsError, REMEDY
)


def read_first_ranges(folder: ShardFolder, run: RunIdentity) -> Mapping[str, float]:
    """Return the first ranges that lie beside the shards of a run; empty without a file.

    StatisticsError, DataError; StaleError where the file is of another run.
    """
    place = f"{folder.place}/{NAME}"
    try:
        content = folder.read_beside(NAME)
    except OSError as error:
        raise StatisticsError(f"{place}: {error.strerror or error}", remedy=REMEDY) from None
    if content is None:
        return {}
    found = DOCUMENT.parse(content.decode(errors="replace"), place)
    if found.run != run.digest:
        raise StaleError(f"{place} is of another run", remedy=REMEDY)
    return found.ranges


def counted_from(shard: Statistics, first_ranges: Mapping[str, float]) -> bool:
    """Return True if the histograms of a shard have the bins that these first ranges give them."""
    return all(on_one_grid(h.range, first_ranges.get(name, 0.0)) for name, h in shard.histograms.items())


def leave_first_ranges(error: OtherRangesError) -> StatisticsError:
    """Write the first ranges of a run beside its shards, and return the error that says so. OutputError."""
    document = FirstRangesDocument(run=error.run, ranges=dict(error.first_ranges))
    content = text_bytes(canonical_json(document.model_dump(mode="json")))
    file = ShardFolder(place_of(error.shards[0]), "").write_beside(NAME, content)
    again = "it" if len(error.shards) == 1 else "these shards"
    remedy = f"make {again} again by the same command, which takes the ranges from {file}, and merge"
    return StatisticsError(error.headline.removesuffix(":"), details=error.details, remedy=remedy)
