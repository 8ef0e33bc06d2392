"""Times of several engines in rounds: one after the other, again and again, so that all of them see the same GPU.

    round 1   fp16  int8  cut        a GPU that grows slower, or another program, slows down a round of all engines
    round 2   cut   int8  fp16       rather than one engine
    round 3   fp16  int8  cut

The time of an engine is the median of its rounds, and its spread is how far apart the middle half of them lies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from quantkit.engines.choice import FASTER
from quantkit.errors import BackendError

if TYPE_CHECKING:
    from quantkit.backends.tensorrt.engine import Engine
    from quantkit.backends.tensorrt.timing import LatencyMeter

ROUNDS = 9
SECONDS = 0.05
"""Seconds to measure one engine in one round: fifty runs of an engine of one millisecond."""


@dataclass(frozen=True, slots=True)
class RoundTimes:
    """The milliseconds of an engine for one batch: the median of its runs in each round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return float(np.median(self.rounds))

    @property
    def spread(self) -> float:
        """The distance between the quartiles of the rounds, as a fraction of their median."""
        low, high = np.percentile(self.rounds, [25, 75])
        return float((high - low) / self.median) if self.median else 0.0

    def is_faster_than(self, other: RoundTimes) -> bool:
        """Return whether this is faster by more than engines differ by chance, and by more than both vary."""
        return bool(other.median >= self.median * max(FASTER, 1.0 + self.spread + other.spread))

    def text(self) -> str:
        """Return the median and the spread, for example `0.142 ms ± 0.4 %`."""
        return f"{self.median:.3f} ms ± {100 * self.spread / 2:.1f} %"


def measure_rounds(
    engines: Mapping[str, Path],
    batches: Sequence[int],
    *,
    device: int = 0,
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, dict[int, RoundTimes]]:
    """Return name → batch size → times, of all engines side by side, as CUDA graphs where that is possible.

    A batch size that an engine was not built for is left out. BackendError where an engine cannot be loaded or run.
    """
    from quantkit.backends.tensorrt.engine import Engine
    from quantkit.backends.tensorrt.timing import takes_batch

    found: dict[str, dict[int, RoundTimes]] = {name: {} for name in engines}
    with ExitStack() as held:
        opened = {name: held.enter_context(Engine.load(path, device)) for name, path in engines.items()}
        for batch in batches:
            with ExitStack() as lanes:
                meters = open_meters({n: e for n, e in opened.items() if takes_batch(e, batch)}, batch, lanes)
                times: dict[str, list[float]] = {name: [] for name in meters}
                for number in range(rounds):
                    say(f"timing {len(meters)} engines at batch {batch}, round {number + 1} of {rounds}")
                    for name in list(meters)[:: -1 if number % 2 else 1]:
                        times[name].append(float(np.median(meters[name].measure(seconds))))
            for name, of_rounds in times.items():
                found[name][batch] = RoundTimes(tuple(of_rounds))
    return found


def open_meters(engines: Mapping[str, Engine], batch: int, held: ExitStack) -> dict[str, LatencyMeter]:
    """Return the engines ready to run: all as CUDA graphs, or none, so that they can be compared. BackendError."""
    from quantkit.backends.tensorrt.timing import LatencyMeter

    try:
        with ExitStack() as tried:
            found = {name: tried.enter_context(LatencyMeter(engine, batch)) for name, engine in engines.items()}
            if all(meter.captures for meter in found.values()):
                held.push(tried.pop_all())
                return found
    except BackendError:
        pass  # a graph that cannot be captured; a real fault comes again below
    return {name: held.enter_context(LatencyMeter(engine, batch, graph=False)) for name, engine in engines.items()}
