"""The record of a shard in its file: which part it is, of which run, and where it was made.

What all shards of a run have in common is written out in each, by the name that users know it by, so that a shard of
another run can be refused with what differs. Host and skipped samples are about this shard alone.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, model_validator

from quantkit._version import __version__
from quantkit.artifact import Digest, canonical_json, sha256_of, text_bytes
from quantkit.frozen_record import FileName, FrozenRecord
from quantkit.sharding.shard import MOST_SHARDS, Shard

COUNT = "number of shards"


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """Everything that the shards of a run have in common, as JSON values by the names that users know them by.

    A value that is a `Digest` is compared, and not shown.
    """

    parts: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """The sha256 of all of it."""
        return sha256_of(text_bytes(canonical_json(dict(self.parts))))


class ShardRecord(FrozenRecord):
    """One shard of a run. index: 0 … count - 1. start, stop: its batches in the run that is not divided."""

    index: Annotated[int, Field(ge=0, lt=MOST_SHARDS)]
    count: Annotated[int, Field(ge=1, le=MOST_SHARDS)]
    start: Annotated[int, Field(ge=0)]
    stop: Annotated[int, Field(ge=1)]
    run: dict[str, Any]
    """What all shards of the run have in common (`RunIdentity.parts`)."""
    digests: tuple[str, ...]
    """The names in `run` whose values are digests."""
    watched: tuple[str, ...] = ()
    """All tensors that are watched, in the order of the table."""
    files: str
    """sha256 over the stamps of this shard's files: if they are the same, so is the content. Empty without files."""
    skipped: tuple[FileName, ...] = ()
    """Samples that could not be read and were skipped on request, with the reason."""
    host: str
    quantkit: str

    @model_validator(mode="after")
    def is_a_shard(self) -> ShardRecord:
        """Check that the index is one of the count, and that there are batches."""
        if not (self.index < self.count and self.start < self.stop):
            raise ValueError("it is no shard of a run")
        return self

    @property
    def shard(self) -> Shard:
        """Which part it is."""
        return Shard(self.index, self.count)

    @property
    def identity(self) -> RunIdentity:
        """The identity of the run that it belongs to."""
        return RunIdentity({n: Digest(v) if n in self.digests and v else v for n, v in self.run.items()})


def run_of_count(run: RunIdentity, count: int) -> RunIdentity:
    """Return the identity of a run that is divided into `count` shards."""
    return RunIdentity({**run.parts, COUNT: count})


def record_shard(
    shard: Shard,
    batches: range,
    run: RunIdentity,
    *,
    files: str,
    skipped: Sequence[str] = (),
    watched: Sequence[str] = (),
) -> ShardRecord:
    """Return the record of a shard that is made here. batches, files, skipped, watched: as in `ShardRecord`."""
    parts = run_of_count(run, shard.count).parts
    return ShardRecord(
        index=shard.index,
        count=shard.count,
        start=batches.start,
        stop=batches.stop,
        run={name: str(value) if isinstance(value, Digest) else value for name, value in parts.items()},
        digests=tuple(name for name, value in parts.items() if isinstance(value, Digest)),
        watched=tuple(watched),
        files=files,
        skipped=tuple(skipped),
        host=platform.node(),
        quantkit=__version__,
    )
