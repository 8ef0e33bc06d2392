"""Samples that nothing was fitted to, and the noise of networks on them.

Statistics are counted, and repairs computed, from most of the data; networks are compared on the rest, of which half
checks what the other half would have chosen.

A gain is the mean over the outputs of 10·log10(noise of one network / noise of the other), so that each output counts
the same, whatever its signal is. Its standard error is the jackknife's over samples, of the difference: two networks
err on the same samples, so that their difference is known better than the noise of either.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from quantkit.data import Feed, open_data
from quantkit.data.opening import DEFAULT_LIMIT
from quantkit.data.splitting import HoldoutPart
from quantkit.graph import Model
from quantkit.numerics import noise_decibels
from quantkit.output_noise import NoiseCandidate, NoiseMeter
from quantkit.preprocess import Preprocess
from quantkit.progress import Phases
from quantkit.quantization.choice_record import Gain
from quantkit.quantization.network_statistics import NetworkSamples
from quantkit.statistics import Statistics

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHARE, SAMPLES = 4, 64
"""One sample of so many is held out, at most so many samples."""
LEAST = 128
"""Fewer samples are not split: on 16 the sign of a difference was right in 8 of 15 cases, which is chance."""
FITTED = 0.9
"""Share of the samples from which on a network stays as it was fitted to them."""
Key = TypeVar("Key", bound=Hashable)
FLOOR = 1e-20
"""The least share of noise that differs from none: −200 dB."""


@dataclass(frozen=True, slots=True)
class HeldOutParts:
    """The data in two parts, and numbers of samples: in the first, and in both."""

    fitting: NetworkSamples
    held: NetworkSamples
    fitted: int
    samples: int

    @property
    def refits(self) -> bool:
        """True if what was chosen should be fitted to all samples again: a larger share of them is held out."""
        return self.fitted < FITTED * self.samples


def hold_out(network: Model, data: NetworkSamples) -> HeldOutParts | str:
    """Return the data in two parts, or why they cannot be split. DataError, UsageError."""
    if isinstance(data.source, Iterator):
        return "the data can be read once only"
    if data.options.part is not None:
        return "the data are a part of a split"
    samples, units = count_samples(open_feed(network, data))
    fixed = next((i.fixed_batch for i in network.inputs if i.fixed_batch is not None), 1)
    units = units // fixed if units == samples else units
    if samples < LEAST or units < SHARE:
        batches = f" in {units} batches" if units < SHARE else ""
        return f"{samples} samples{batches} are too few to hold some out"
    share = 1.0 / max(SHARE, round(samples / max(SAMPLES, fixed)))
    limit = data.options.limit or (DEFAULT_LIMIT if units == samples else None)
    parts = [
        replace(data, options=replace(data.options, part=HoldoutPart(share, held, limit))) for held in (False, True)
    ]
    return HeldOutParts(parts[0], parts[1], count_samples(open_feed(network, parts[0]))[0], samples)


def open_feed(network: Model, data: NetworkSamples) -> Feed:
    """Return the feed of samples whose preprocessing is resolved. DataError, UsageError."""
    assert isinstance(data.preprocess, Preprocess)
    return open_data(data.source, network.inputs, data.preprocess, data.options)[0]


def count_samples(feed: Feed) -> tuple[int, int]:
    """Return the number of samples, and of what can be held out alone: samples, or ready-made batches. They are read
    where the source does not know. DataError."""
    if feed.samples is not None:
        return feed.samples, feed.samples
    counts = [portion.samples for portion in feed.portions()]
    return sum(counts), len(counts)


def saw_samples(statistics: Statistics, network: Model, part: NetworkSamples) -> bool:
    """Return True if statistics saw one of the samples, or may have: statistics of some histograms do not tell, nor do
    streams. DataError."""
    if statistics.samples is None:
        return True
    identity = open_feed(network, part).identity()
    if identity is None or identity.heads is None:
        return True
    return bool(np.isin(np.array(identity.heads, np.uint64), statistics.samples).any())


@dataclass(frozen=True, slots=True)
class MeasuredNoise:
    """Signal and noise of every output of a network, sample by sample."""

    energies: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]

    def half(self, second: bool) -> MeasuredNoise:
        """Return the figures of every other sample."""
        chosen = slice(int(second), None, 2)
        return MeasuredNoise({name: (signal[chosen], noise[chosen]) for name, (signal, noise) in self.energies.items()})

    def followed_by(self, other: MeasuredNoise) -> MeasuredNoise:
        """Return the figures of both."""
        pairs = {name: zip(own, other.energies[name], strict=True) for name, own in self.energies.items()}
        return MeasuredNoise({name: tuple(np.concatenate(each) for each in pair) for name, pair in pairs.items()})  # type: ignore[misc]

    def decibels(self, outputs: Sequence[str]) -> float:
        """Return the mean SQNR of some outputs in dB, at most 200 for each."""
        if not outputs:
            return math.nan
        return float(np.mean([noise_decibels(max(self.share(name), FLOOR)) for name in outputs]))

    def share(self, name: str) -> float:
        """Return the noise of an output over its signal: 0/0 is 0."""
        signal, noise = (float(each.sum()) for each in self.energies[name])
        return noise / signal if signal else (math.inf if noise else 0.0)


def gain_over(better: MeasuredNoise, worse: MeasuredNoise, outputs: Sequence[str]) -> Gain:
    """Return what `better` gains over `worse` on the samples that both ran on.

    Where outputs do not tell samples apart, the error is as large as the gain.
    """
    if not outputs:
        return Gain(0.0, 0.0)
    whole, without = [], []
    for name in outputs:
        (signal, ours), (_, theirs) = better.energies[name], worse.energies[name]
        floor = max(float(signal.sum()), np.finfo(np.float64).tiny) * FLOOR
        whole.append(ratio_db(theirs.sum(), ours.sum(), floor))
        without.append(ratio_db(leave_one_out(theirs), leave_one_out(ours), floor))
    db = float(np.mean(whole))
    if len({len(each) for each in without}) != 1 or len(without[0]) < 2:
        return Gain(db, abs(db))
    each = np.mean(without, axis=0)
    count = len(each)
    return Gain(db, float(np.sqrt((count - 1) / count * np.square(each - each.mean()).sum())))


def leave_one_out(noise: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sum without each of the samples."""
    return np.asarray(np.maximum(noise.sum() - noise, 0.0))


def ratio_db(above: NDArray[np.float64], below: NDArray[np.float64], floor: float) -> NDArray[np.float64]:
    """Return 10·log10 of noises that are finite and not below a floor."""
    most = np.finfo(np.float64).max
    return np.asarray(10.0 * np.log10(np.clip(above, floor, most) / np.clip(below, floor, most)))


class HeldOutMeter(Generic[Key]):
    """Measures networks on the held-out samples, and keeps the figures by the keys of the networks."""

    def __init__(self, network: Model, data: NetworkSamples, *, frugal: bool = False) -> None:
        """ModelError if the network has no output that could be compared. frugal: as for `NoiseMeter`."""
        feed = open_feed(network, data)
        self._meter = NoiseMeter(network, feed, data.options.threads, detections=True, frugal=frugal)
        self.found: dict[Key, MeasuredNoise] = {}

    @property
    def samples(self) -> int:
        """The number of samples."""
        return self._meter.samples

    def measure(self, networks: Mapping[Key, Callable[[], Model]], phase: Phases) -> None:
        """Measure the networks that are not yet. ModelError, DataError."""
        new = {key: make for key, make in networks.items() if key not in self.found}
        if new:
            phase("comparing outputs")
            names = {str(number): key for number, key in enumerate(new)}
            noise = self._meter.noise({name: NoiseCandidate(new[key]) for name, key in names.items()}, phase.count)
            self.found |= {names[name]: MeasuredNoise(each.energies) for name, each in noise.items()}

    @property
    def outputs(self) -> tuple[str, ...]:
        """The outputs in which networks differ: not without a signal, and not exact in all networks."""
        each = list(self.found.values())
        names = list(each[0].energies) if each else []
        heard = [name for name in names if all(math.isfinite(noise.share(name)) for noise in each)]
        return tuple(name for name in heard if any(noise.share(name) > FLOOR for noise in each))
