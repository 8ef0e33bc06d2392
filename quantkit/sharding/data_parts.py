"""The shards of a feed: which batches they hold, what data they are of, and whether an existing one is of the same.

The content of a sample is read by its own shard alone. What all shards know of the data is the list of its samples.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeVar

from quantkit.artifact import sha256_of, text_bytes
from quantkit.errors import DataError, ShardError, StaleError, StatisticsError
from quantkit.sharding.completeness import describe_differences
from quantkit.sharding.record import RunIdentity, ShardRecord, run_of_count
from quantkit.sharding.shard import Shard

REMEDY = "another --output keeps both; --force replaces it"
Part = TypeVar("Part", covariant=True)


class DividedData(Protocol[Part]):
    """Data in batches of which runs can be read alone, as the feeds of `quantkit.data` are; attributes as there."""

    kind: str
    batch_size: int | None
    positions: int | None
    batches: int | None

    @property
    def names(self) -> Sequence[str] | None:
        """The names of all samples, in order; None if they are not known."""

    @property
    def unreadable(self) -> list[str]:
        """The samples that were skipped on request, with the reason."""

    def stamps(self) -> tuple[Any, ...]:
        """Return the stamps of the files."""

    def identity(self) -> Any:
        """Return the identity of the samples."""

    def part(self, batches: range) -> Part:
        """Return a run of the batches alone."""


class SampleChoice(Protocol):
    """The options of reading data that choose samples, as `DataOptions` has them."""

    @property
    def limit(self) -> int | None:
        """Maximum number of samples."""

    @property
    def shuffle(self) -> bool:
        """True for a random order."""

    @property
    def seed(self) -> int:
        """The seed of that order."""


def shard_batches(feed: DividedData[Any], shard: Shard) -> range:
    """Return the batches of a shard. DataError where the number of batches is not known; UsageError."""
    if feed.batches is None:
        raise DataError(
            "data from Python code cannot be divided into shards: how many batches there are is not known",
            remedy="save the batches as .npz files, and give their folder",
        )
    return shard.batches_of(feed.batches)


def data_parts(feed: DividedData[Any], options: SampleChoice) -> dict[str, object]:
    """Return what the shards of a run have in common about the data, by the names that users know it by."""
    return {
        "samples or files": feed.positions,
        "batch size": feed.batch_size,
        "limit": options.limit,
        "shuffle": options.shuffle,
        "seed": options.seed if options.shuffle else None,
    }


def digest_list(feed: DividedData[Any]) -> str:
    """Return the sha256 of the list of chosen samples: their names, in order; of arrays also the sizes of the files."""
    sizes = () if feed.kind == "images" else tuple((stamp.name, stamp.size) for stamp in feed.stamps())
    return sha256_of(text_bytes(repr((tuple(feed.names or ()), sizes))))


def digest_stamps(feed: DividedData[Any]) -> str:
    """Return the sha256 of the stamps of a feed's files; empty if there are none."""
    stamps = feed.stamps()
    return sha256_of(text_bytes(repr([stamp.record for stamp in stamps]))) if stamps else ""


def refuse_moved_batches(feed: DividedData[Any], why: str, remedy: str = "remove the file") -> None:
    """Raise DataError where a sample was left out, which moves others into other batches than those of one run.

    why: the reason why the numbers depend on the batches; empty if they do not.
    """
    if why and feed.unreadable:
        raise DataError(
            f"{feed.unreadable[0]}; leaving it out moves samples into other batches, which shards cannot do: {why}",
            remedy=remedy,
        )


@contextlib.contextmanager
def replaced_by_force() -> Iterator[None]:
    """Raise StaleError, whose remedy is --force, where an existing shard is damaged or something else."""
    try:
        yield
    except (ShardError, StatisticsError) as error:
        raise StaleError(error.headline, remedy="--force replaces it") from None


def refuse_other_shard(
    file: str,
    record: ShardRecord,
    content: str,
    run: RunIdentity,
    shard: Shard,
    feed: DividedData[Any],
    *,
    skip_corrupt: bool,
) -> None:
    """Raise StaleError unless an existing shard is the one that a run would make again.

    content: the identity of its samples. feed: of the whole run, which is read only where its files changed.
    """
    ours = run_of_count(run, shard.count)
    if record.shard != shard or record.identity.digest != ours.digest:
        what = describe_differences(record.identity, ours) or f"it is shard {record.shard}"
        raise StaleError(f"{file} is of another run: {what}", remedy=REMEDY)
    if record.skipped and not skip_corrupt:
        raise StaleError(
            f"{file} was made without {len(record.skipped)} samples that could not be read",
            remedy="accept that with --skip-corrupt, or fix the files",
        )
    part = feed.part(shard_batches(feed, shard))
    if record.files and record.files == digest_stamps(part):
        return
    identity = part.identity()
    if identity is None or identity.content != content:
        raise StaleError(f"{file} was made of other data: samples changed", remedy=REMEDY)
