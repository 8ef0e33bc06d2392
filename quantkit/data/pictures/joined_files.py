"""Numbers of pictures across several files that are read one after the other."""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True, slots=True)
class JoinedFiles:
    """Files one after the other. ends: for each, the number of pictures in it and in those before it."""

    ends: tuple[int, ...]

    @classmethod
    def of(cls, counts: Iterable[int]) -> JoinedFiles:
        """Return files of so many pictures each."""
        return cls(tuple(accumulate(counts)))

    @property
    def count(self) -> int:
        """The number of pictures in all files."""
        return self.ends[-1] if self.ends else 0

    def start(self, file: int) -> int:
        """Return the number of the first picture of a file."""
        return self.ends[file - 1] if file else 0

    def place(self, index: int) -> tuple[int, int]:
        """Return the file that a picture is in, and its number there."""
        file = bisect.bisect_right(self.ends, index)
        return file, index - self.start(file)
