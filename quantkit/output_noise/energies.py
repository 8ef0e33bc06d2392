"""Energies of outputs and of their noise, added up exactly over batches, and the noise that follows from them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from quantkit.numerics import noise_decibels, noise_share
from quantkit.statistics.exact_sum import ExactSum

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from quantkit.values import Array


@dataclass(slots=True)
class EnergySums:
    """Accumulated energies: output → Σ ref² and Σ (ref − out)², each the exact sum of those of all batches.

    samples: output → both for every sample, one row each; of these batches alone, where others are joined to them.
    """

    signal: dict[str, ExactSum] = field(default_factory=dict)
    noise: dict[str, ExactSum] = field(default_factory=dict)
    samples: dict[str, list[NDArray[np.float64]]] = field(default_factory=dict)

    def add(self, name: str, exact: Array, other: Array, samples: int = 1) -> None:
        """Add a tensor. Differences that are not finite count as infinite noise, but not Inf and NaN of both.

        samples: rows of axis 0 that are samples; a tensor of another length counts as one.
        """
        rows = samples if exact.ndim and len(exact) == samples else 1
        wide = exact.astype(np.float64)
        equal = (wide == other) | (np.isnan(wide) & np.isnan(other))
        with np.errstate(invalid="ignore", over="ignore"):
            squares = np.square(np.where(equal, 0.0, wide - other))
            noise = float(squares.sum())
        energies = np.square(wide, where=np.isfinite(wide), out=np.zeros_like(wide))
        self.signal.setdefault(name, ExactSum()).add(float(energies.sum()))
        self.noise.setdefault(name, ExactSum()).add(noise if math.isfinite(noise) else math.inf)
        each = np.stack([part.reshape(rows, wide.size // rows).sum(axis=1) for part in (energies, squares)], axis=1)
        self.samples.setdefault(name, []).append(np.where(np.isfinite(each), each, math.inf))

    def ratio(self, names: Sequence[str]) -> float:
        """Return the mean noise-to-signal ratio of tensors."""
        shares = (noise_share(self.noise[name].value, self.signal[name].value) for name in names)
        return sum(shares) / len(names)

    def state(self) -> Mapping[str, Any]:
        """Return the sums so far as plain values."""
        return {name: [self.signal[name].state(), noise.state()] for name, noise in self.noise.items()}

    def extend(self, state: Mapping[str, Any]) -> None:
        """Add the sums of other batches."""
        for name, (signal, noise) in state.items():
            self.signal.setdefault(name, ExactSum()).extend(signal)
            self.noise.setdefault(name, ExactSum()).extend(noise)


@dataclass(slots=True)
class NoiseTotals:
    """Totals of candidates over samples.

    sums: of every candidate. missing: outputs of the reference that hold NaN. defined: those that hold other values.
    """

    sums: Mapping[str, EnergySums]
    samples: int = 0
    missing: set[str] = field(default_factory=set)
    defined: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, names: Iterable[str]) -> NoiseTotals:
        """Return totals of nothing yet. names: of the candidates."""
        return cls({name: EnergySums() for name in names})

    def state(self) -> Mapping[str, Any]:
        """Return the totals so far as plain values."""
        return {
            "samples": self.samples,
            "missing": sorted(self.missing),
            "defined": sorted(self.defined),
            "sums": {name: sums.state() for name, sums in self.sums.items()},
        }

    def extend(self, state: Mapping[str, Any]) -> None:
        """Add the totals of other samples. KeyError for those of other candidates."""
        self.samples += int(state["samples"])
        self.missing.update(state["missing"])
        self.defined.update(state["defined"])
        for name, sums in self.sums.items():
            sums.extend(state["sums"][name])


@dataclass(frozen=True, slots=True)
class OutputNoise:
    """Noise-to-signal ratio (of energies) of the outputs, and of the candidate's pair; 0 is exact."""

    outputs: float
    local: float = 0.0
    each: Mapping[str, float] = field(default_factory=dict)
    """The ratio of every single output."""
    energies: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = field(
        default_factory=dict, compare=False, repr=False
    )
    """Signal and noise of every output, sample by sample; one figure where its axis 0 does not count samples."""

    @property
    def db(self) -> float:
        """SQNR of the outputs in dB."""
        return noise_decibels(self.outputs)

    @property
    def local_db(self) -> float:
        """SQNR of the candidate's pair in dB."""
        return noise_decibels(self.local)
