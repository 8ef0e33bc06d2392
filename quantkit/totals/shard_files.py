"""The files of shards: made once, reused if nothing changed, and read one after the other when all are there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from quantkit.data import Feed
from quantkit.errors import ShardError, StaleError
from quantkit.progress import Progress
from quantkit.sharding import RunIdentity, Shard, ShardRecord, order_shards
from quantkit.sharding.completeness import describe_differences
from quantkit.sharding.data_parts import REMEDY, refuse_other_shard, replaced_by_force
from quantkit.sharding.folder import Place, ShardFolder, read_shard_file
from quantkit.sharding.record import run_of_count
from quantkit.totals.tree_file import StoredTotals, TotalsFormat


class ShardMaker(Protocol):
    """A maker of any shards of a pass; network and data are opened once for all of them."""

    @property
    def feed(self) -> Feed:
        """The data of the whole pass."""

    @property
    def run(self) -> RunIdentity:
        """The identity of the run: all that its shards have in common."""

    def collect(self, shard: Shard, progress: Progress) -> bytes:
        """Run the batches of one shard, and return the content of its file."""

    def reason_to_renew(self, stored: StoredTotals) -> str:
        """Return why a shard of this run would be another now, beside its samples: `made with …`; "" if it would not.

        DataError.
        """


@dataclass(frozen=True, slots=True)
class MadeShard:
    """A shard whose totals are in `file`. reused: it was there already, and nothing changed."""

    totals: StoredTotals
    file: str
    reused: bool


def make_shard(
    maker: ShardMaker,
    form: TotalsFormat,
    place: Place,
    shard: Shard,
    progress: Progress,
    *,
    force: bool,
    skip_corrupt: bool,
) -> MadeShard:
    """Run one shard, and write its file to a folder or a URL, unless it is there already.

    Raises what `collect` raises; StaleError where a shard of another run is there, OutputError.
    """
    folder = ShardFolder(place, form.suffix)
    with folder.claimed(shard):
        file = folder.file_of(shard)
        if not force and folder.has(shard):
            with replaced_by_force():
                there = form.parse(read_totals(file), file)
                samples = there.content
            refuse_other_shard(file, there.shard, samples, maker.run, shard, maker.feed, skip_corrupt=skip_corrupt)
            if reason := maker.reason_to_renew(there):
                raise StaleError(f"{file} was {reason}", remedy=REMEDY)
            return MadeShard(there, file, True)
        content = maker.collect(shard, progress)
        made = form.parse(content, file)
        folder.write(shard, content, force=force)
    return MadeShard(made, file, False)


def shards_at(form: TotalsFormat, place: Place) -> Iterator[tuple[str, bytes]]:
    """Yield path or URL and content of the shards at a place, in the order of the data; one is read at a time.

    ShardError where one is missing.
    """
    for file in ShardFolder(place, form.suffix).complete():
        yield file, read_totals(file)


def stored_shards(
    maker: ShardMaker, form: TotalsFormat, parts: Iterable[tuple[str, bytes]]
) -> Iterator[tuple[str, StoredTotals]]:
    """Yield name and totals of all shards of a run, in the order of the data.

    parts: name and content of each file. ShardError where one is missing, there twice, damaged, or of another run; the
    last of these is known at the end alone, so that every shard has to be taken before the totals are used.
    """
    records: dict[str, ShardRecord] = {}
    for name, content in parts:
        stored = form.parse(content, name)
        records[name] = stored.shard
        refuse_other_run(maker, form, name, stored)
        yield name, stored
    for name, expected in zip(records, order_shards(records), strict=True):
        if name != expected:
            raise ShardError(
                f"{name} holds shard {records[name].shard}, out of order",
                remedy="give it back its name, or make it again",
            )


def refuse_other_run(maker: ShardMaker, form: TotalsFormat, name: str, stored: StoredTotals) -> None:
    """Raise ShardError where a shard is of other networks, data or options than those of this run, or has changed."""
    theirs, ours = stored.shard.identity, run_of_count(maker.run, stored.shard.count)
    if theirs.digest != ours.digest:
        raise ShardError(
            f"{name} is of another run: {describe_differences(theirs, ours)}",
            remedy="give the models, data and options that it was made with, or make it again: "
            f"--shard {stored.shard.shard} --force",
        )
    with damaged_totals(form, name):
        reason = maker.reason_to_renew(stored)
    if reason:
        raise ShardError(
            f"{name} was {reason} than those that are there now",
            remedy=f"make it again: --shard {stored.shard.shard} --force",
        )


@contextlib.contextmanager
def damaged_totals(form: TotalsFormat, name: str) -> Iterator[None]:
    """Raise ShardError where totals have another form than those of this version."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ShardError(f"{name} is damaged: its totals are none ({error})", remedy=form.remedy) from None


def read_totals(file: str) -> bytes:
    """Return the content of a shard. ShardError, DataError."""
    try:
        return read_shard_file(file)
    except OSError as error:
        raise ShardError(f"{file}: {error.strerror or error}", remedy="check the path") from None
