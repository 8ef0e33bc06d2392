"""Progress that asks to stop after some samples, and remembers how every pass began."""

from __future__ import annotations


class StopAfterSamples:
    """Without a number it never stops."""

    def __init__(self, after: int = 1 << 62) -> None:
        self.after, self.counted, self.begun = after, 0, list[tuple[int | None, int]]()

    def start(self, samples: int | None, _passes: int, done: int) -> None:
        """Remember how many samples there are, and how many were counted before."""
        self.begun.append((samples, done))

    def advance(self, samples: int) -> None:
        """Count."""
        self.counted += samples

    def stopped(self) -> bool:
        """True from then on."""
        return self.counted >= self.after

    def close(self) -> None:
        """Nothing."""
