"""Shards are merged if they are all there, each once, and of one run; otherwise the faulty ones are named."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from quantkit.artifact import Digest
from quantkit.errors import ShardError
from quantkit.sharding.record import RunIdentity, ShardRecord
from quantkit.sharding.shard import Shard

SHOWN = 20


def order_shards(records: Mapping[str, ShardRecord]) -> list[str]:
    """Return the names of shards in the order of their batches.

    ShardError where they are of different runs, one is there twice, or one is missing.
    """
    if not records:
        raise ShardError("there are no shards", remedy="make them with --shard 0/4, 1/4 …")
    refuse_foreign(records)
    names = sorted(records, key=lambda name: records[name].index)
    for a, b in itertools.pairwise(names):
        if records[a].index == records[b].index:
            raise ShardError(f"{a} and {b} are both shard {records[a].shard}", remedy="keep one of them")
    count, total = records[names[0]].count, records[names[-1]].stop
    missing = sorted({*range(count)} - {record.index for record in records.values()})
    if missing:
        raise missing_shards(missing, count)
    for name in names:
        found, expected = records[name], records[name].shard.batches_of(total)
        if (found.start, found.stop) != (expected.start, expected.stop):
            raise ShardError(
                f"{name} holds the batches {found.start} to {found.stop - 1} of {total}, not those of its shard",
                remedy="make it again with --force",
            )
    return names


def missing_shards(missing: Sequence[int], count: int) -> ShardError:
    """Return the error for shards that are not there; details list them as options, to be run again."""
    shown = [f"--shard {Shard(index, count)}" for index in missing[:SHOWN]]
    more = [f"… and {len(missing) - SHOWN} more"] if len(missing) > SHOWN else []
    verb = "is" if len(missing) == 1 else "are"
    return ShardError(
        f"{len(missing)} of {count} shards {verb} missing",
        details=[*shown, *more],
        remedy="run the command again with each of these options, then merge",
    )


def refuse_foreign(records: Mapping[str, ShardRecord]) -> None:
    """Raise ShardError where shards are of different runs; it names those of the smaller run, and what differs."""
    runs = Counter(record.identity.digest for record in records.values())
    if len(runs) == 1:
        return
    (ours, _), *_ = runs.most_common()
    usual = next(name for name, record in records.items() if record.identity.digest == ours)
    foreign = [name for name, record in records.items() if record.identity.digest != ours]
    other = records[foreign[0]].identity
    more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
    raise ShardError(
        f"{foreign[0]}{more} and {usual} are of different runs: "
        + describe_differences(other, records[usual].identity),
        remedy="keep the shards of one run in a folder, made with the same model, data and options",
    )


def describe_differences(theirs: RunIdentity, ours: RunIdentity) -> str:
    """Return what differs between two runs as text: `batch size (8, and 16), model`."""
    names = [name for name in {**ours.parts, **theirs.parts} if ours.parts.get(name) != theirs.parts.get(name)]
    return ", ".join(describe_difference(name, theirs.parts.get(name), ours.parts.get(name)) for name in names)


def describe_difference(name: str, theirs: Any, ours: Any) -> str:
    """Return one difference as text; digests are not shown, of a mapping its keys that differ."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        keys = [key for key in {**theirs, **ours} if theirs.get(key) != ours.get(key)]
        return f"{name} ({', '.join(keys)})"
    if any(isinstance(value, (Digest, dict)) for value in (theirs, ours)):
        return name
    return f"{name} ({plain_value(theirs)}, and {plain_value(ours)})"


def plain_value(value: Any) -> str:
    """Return the value of an option as text; `none` for nothing, and yes or no for a switch."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return " ".join(map(plain_value, value)) or "none"
    return "none" if value is None else str(value)
