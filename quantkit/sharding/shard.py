"""A shard: one of n parts of a pass over data, each a contiguous run of whole batches.

The batches are those of the run that is not divided: batch b holds the same samples. Their order is kept as well, so
that whatever depends on it can be computed from the shards in the order of their indices.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from quantkit.errors import UsageError
from quantkit.view import quoted

MOST_SHARDS = 1_000_000
FORM = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")
FILE_NAME = re.compile(r"([0-9]{4,7})-of-([0-9]{4,7})")


@dataclass(frozen=True, slots=True, order=True)
class Shard:
    """One of `count` parts. index: 0 … count - 1. Its text is `3/64`. UsageError for another index."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MOST_SHARDS:
            raise UsageError(f"--shard {self} has no shards, or too many", remedy=f"use 1 to {MOST_SHARDS:,} shards")
        if not 0 <= self.index < self.count:
            raise UsageError(
                f"--shard {self} is not one of {self.count}: the first is 0/{self.count}",
                remedy=f"let the index run from 0 to {self.count - 1}",
            )

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @classmethod
    def named(cls, text: str | Shard) -> Shard:
        """Return the shard of a text such as `3/64`. UsageError."""
        if isinstance(text, Shard):
            return text
        found = FORM.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            given = str(text)
            unset = "; a variable of the shell may be unset" if "" in given.split("/") else ""
            raise UsageError(f"--shard {quoted(given)} is not INDEX/COUNT", remedy=f"for example --shard 3/64{unset}")
        return cls(int(found[1]), int(found[2]))

    @property
    def stem(self) -> str:
        """The name of its file without the suffix: `0003-of-0064`."""
        return f"{self.index:04d}-of-{self.count:04d}"

    def batches_of(self, total: int) -> range:
        """Return its batches out of `total`. UsageError where some shard would have none."""
        if self.count > total:
            batches = "1 batch" if total == 1 else f"{total} batches"
            raise UsageError(
                f"{batches} cannot be divided into {self.count} shards",
                remedy=f"use at most {total} shards, or a smaller --batch-size",
            )
        return range(self.index * total // self.count, (self.index + 1) * total // self.count)


def shard_of_file(name: str) -> Shard | None:
    """Return the shard in the name of a file, such as `0003-of-0064.stats.safetensors`; None if there is none."""
    stem = name.split(".", 1)[0]
    found = FILE_NAME.fullmatch(stem)
    if found is None or not int(found[1]) < int(found[2]) <= MOST_SHARDS:
        return None
    shard = Shard(int(found[1]), int(found[2]))
    return shard if shard.stem == stem else None
