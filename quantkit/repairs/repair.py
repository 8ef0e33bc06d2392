"""A repair as a value: what it is called, what it needs, what it does, and the sentence that reports it.

Each repair is one file of this folder that ends with such a value; `quantkit.repairs.registry` lists them in order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from quantkit.progress import Phases
from quantkit.repairs.figures import ChannelFigures, channel_figures

if TYPE_CHECKING:
    import onnx

    from quantkit.graph.model import Model
    from quantkit.qdq.insert import QuantizationPlan
    from quantkit.statistics import Statistics
    from quantkit.values import Array, Batch

Observe: TypeAlias = "Callable[[Sequence[str]], Iterable[Batch]]"
"""Runs the network and yields the named tensors batch by batch, from the start each time."""


class Needs(Enum):
    """The source that a repair is computed from."""

    STATISTICS = "statistics"
    DATA = "data"
    """The network runs on data again."""


@dataclass(frozen=True, slots=True)
class RepairInput:
    """A frozen value that holds everything a repair may look at.

    statistics: those of `network` as it is. plan: what will be quantized, and to which type. observe: None without
    data. rounds_weights: a repair of this run rounds weights adaptively. unrounded: the network before weights were
    rounded; None as long as they are not. phase: receives phases within the repair.
    """

    network: Model
    statistics: Statistics
    plan: QuantizationPlan
    observe: Observe | None = None
    rounds_weights: bool = False
    unrounded: Model | None = None
    phase: Phases = field(default_factory=Phases)

    @property
    def quantized_channels(self) -> dict[str, ChannelFigures]:
        """Figures per channel of the activations that will be INT8, by tensor."""
        return {name: found for name, found in channel_figures(self.statistics).items() if name in self.plan.tensors}

    def without_floats(self, skipped: Mapping[str, str]) -> dict[str, str]:
        """The skipped nodes without those that stay float anyway."""
        return {name: why for name, why in skipped.items() if name not in self.plan.floats}


@dataclass(frozen=True, slots=True)
class RepairOutcome:
    """A network after a repair.

    gains: everything that was changed → gain in dB. skipped: what stays as it is → the reason. amounts: what changed →
    factors that its channels were divided by, or shifts that were added to its bias, where a repair has such. rescaled:
    the activations that have other values than before; the network computes the same in all others.
    """

    proto: onnx.ModelProto
    gains: Mapping[str, float]
    skipped: Mapping[str, str]
    amounts: Mapping[str, Array] = field(default_factory=dict)
    rescaled: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RepairReport:
    """A repair in words. gains: everything that was changed → gain in dB; skipped: what stays as it is → the reason."""

    text: str
    gains: Mapping[str, float]
    skipped: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Repair:
    """A repair of a float network that makes its quantized version more exact.

    summary: one clause for the documentation. unit: what is counted, in the plural with a participle. basis: how gains
    are known. rescales: activations change, so that their statistics have to be collected again. rounds_weights:
    weights lie on their INT8 grids afterwards, and other repairs can rely on it.
    """

    name: str
    needs: Needs
    summary: str
    unit: str
    basis: str
    apply: Callable[[RepairInput], RepairOutcome]
    rescales: bool = False
    rounds_weights: bool = False
    int8_only: str = ""
    """Why it does nothing for FP8; empty if it knows FP8."""

    def report(self, outcome: RepairOutcome) -> RepairReport:
        """Return for example `22 biases corrected, 0.3 dB in the median (predicted); 2 left: no Add follows it`."""
        gains, skipped = outcome.gains, outcome.skipped
        text = f"no {self.unit}"
        if gains:
            text = f"{len(gains)} {self.unit}, {float(np.median(list(gains.values()))):.1f} dB in the median"
            text += f" ({self.basis})"
        if skipped:
            most = Counter(skipped.values()).most_common(1)[0][0]
            text += f"; {len(skipped)} left{': ' if len(set(skipped.values())) == 1 else ', mostly: '}{most}"
        return RepairReport(text, gains, skipped)
