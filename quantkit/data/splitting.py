"""Two parts of a data set: one for choosing, and one that is held out for the report.

The list of samples is cut into strips of equal length, and one sample of every strip, drawn by a seeded generator, goes
into the smaller part. Both parts are therefore spread over the whole list (class folders follow each other in it, so
that every class is divided in the same ratio), and a list with alternating classes is not split by class.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from quantkit.errors import UsageError
from quantkit.values import Selection

SEED = 0


@dataclass(frozen=True, slots=True)
class HoldoutPart:
    """One of the two parts. share: fraction of the samples to hold out, above 0 and below 1; held: True for that part.
    limit: maximum number of samples in both parts, spread evenly over the list; None: all."""

    share: float
    held: bool
    limit: int | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.share < 1.0:
            raise UsageError(f"--holdout {self.share:g} is not between 0 and 1", remedy="for example --holdout 0.5")
        if self.limit is not None and self.limit < 2:
            raise UsageError(f"{self.limit} samples cannot be split", remedy="give a limit of at least 2")

    def of(self, count: int) -> list[int]:
        """Return ascending indices into a list of `count` samples."""
        chosen = Selection(self.limit).of(count)
        return [index for index, mine in zip(chosen, self.members(), strict=False) if mine]

    def members(self) -> Iterator[bool]:
        """Yield for the first, second, … sample whether it is in this part; without end."""
        lesser = min(self.share, 1.0 - self.share)
        drawn = random.Random(SEED)  # `random()` gives the same numbers in every Python
        position = number = 0
        while True:
            end = round((number + 1) / lesser)
            chosen = position + int(drawn.random() * (end - position))
            for index in range(position, end):
                yield (index == chosen) == (self.held == (self.share <= 0.5))
            position, number = end, number + 1
