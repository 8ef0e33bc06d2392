"""Two parts of a data set: one to choose by, one held out to report on.

The list of samples is cut into strips of equal length, and of every strip one sample, drawn by a seeded generator, goes
into the smaller part. So both parts are spread over the whole list (class folders are sorted one behind the other, so
each class is shared out in the same way), and a list whose classes take turns is not split along them.
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
    """One of the two parts. share: of the samples that is held out, above 0 and below 1; held: whether this is the part
    held out. limit: samples that are shared out at most, spread evenly over the list; None: all."""

    share: float
    held: bool
    limit: int | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.share < 1.0:
            raise UsageError(f"{self.share:g} of the samples are held out", remedy="for example --holdout 0.5")
        if self.limit is not None and self.limit < 2:
            raise UsageError(f"{self.limit} samples cannot be shared out", remedy="give a limit of at least 2")

    def of(self, count: int) -> list[int]:
        """Indices into a list of `count` samples, ascending."""
        chosen = Selection(self.limit).of(count)
        return [index for index, mine in zip(chosen, self.members(), strict=False) if mine]

    def members(self) -> Iterator[bool]:
        """Whether the first, second, … sample is in this part; without end."""
        lesser = min(self.share, 1.0 - self.share)
        drawn = random.Random(SEED)  # `random()` gives the same numbers in every Python
        position = number = 0
        while True:
            end = round((number + 1) / lesser)
            chosen = position + int(drawn.random() * (end - position))
            for index in range(position, end):
                yield (index == chosen) == (self.held == (self.share <= 0.5))
            position, number = end, number + 1
