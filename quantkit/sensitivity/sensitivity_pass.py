"""One pass of all variants of a network over samples, and the totals from which all figures follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quantkit.data import Feed
from quantkit.output_noise import NoiseMeter, NoiseTotals
from quantkit.progress import Phases
from quantkit.sensitivity.layer_ranking import ranking_candidates
from quantkit.sensitivity.result import TensorError
from quantkit.sensitivity.subject import SensitivitySubject, quantized_activations, weight_errors
from quantkit.sensitivity.tensor_errors import ActivationErrorSums, ActivationMeter

VARIANTS = "variants of the network"
"""The phase that takes most of the time."""


@dataclass(frozen=True, slots=True)
class SensitivityTotals:
    """Sums over samples: of every activation, by the name of its float tensor, and of every variant."""

    activations: Mapping[str, ActivationErrorSums]
    noise: NoiseTotals

    def state(self) -> Mapping[str, Any]:
        """Return the totals so far as plain values."""
        activations = {name: sums.state() for name, sums in self.activations.items()}
        return {"activations": activations, "noise": self.noise.state()}

    def extend(self, state: Mapping[str, Any]) -> None:
        """Add the totals of other samples. KeyError, TypeError or ValueError where they have another form."""
        for name, sums in self.activations.items():
            sums.extend(state["activations"][name])
        self.noise.extend(state["noise"])


class SensitivityPass:
    """Measures a network on any parts of a feed; the float network is loaded once for all of them.

    threads: candidates that run at once. Every part opens each variant again, and closes it, so that memory holds few.
    """

    def __init__(self, subject: SensitivitySubject, feed: Feed, threads: int) -> None:
        self.subject = subject
        self.noise = NoiseMeter(subject.reference, feed, threads)
        self.candidates = ranking_candidates(subject.variants)
        self._activations = ActivationMeter(subject.variants, quantized_activations(subject), threads)

    def start(self) -> SensitivityTotals:
        """Return totals of nothing yet."""
        return SensitivityTotals(self._activations.start(), NoiseTotals.of(self.candidates))

    def collect(self, feed: Feed, phases: Phases) -> SensitivityTotals:
        """Return the totals over all samples of a feed, which is read twice. DataError, ModelError."""
        phases("tensors")
        activations = self._activations.collect(feed, phases.count)
        phases(f"{len(self.candidates)} {VARIANTS}")
        return SensitivityTotals(activations, self.noise.collect(self.candidates, phases.count, feed))

    def tensor_errors(self, totals: SensitivityTotals) -> dict[tuple[str, str], TensorError]:
        """Return (tensor, node) → error, for activations on the data and for weights."""
        measured = [sums.error() for sums in totals.activations.values() if sums.seen]
        return {(e.name, e.node): e for e in (*measured, *weight_errors(self.subject))}
