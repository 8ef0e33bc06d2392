"""The record of a choice by samples held out: in words, for programs, and in the metadata of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from quantkit.numerics import format_db


@dataclass(frozen=True, slots=True)
class Gain:
    """The dB by which one network is better than another, and their standard error."""

    db: float
    error: float

    def clear(self, errors: float) -> bool:
        """Return True if it is above 0 by more than so many standard errors."""
        return self.db > 0.0 and self.db > errors * self.error

    @property
    def text(self) -> str:
        """Return for example `+0.7 ± 0.1 dB`."""
        return f"{self.db + 0.0:+.1f} ± {self.error:.1f} dB".replace("-", "−")


@dataclass(frozen=True, slots=True)
class ScaleFactor:
    """A factor that all scales in INT8 were tried with, after the rule and the repairs were chosen.

    fitted: what it gains on the samples that it was chosen by, `samples` of those that scales and repairs were fitted
    to. held: what it gains on those that nothing was fitted to; None if it was not tried there, because it loses.
    kept: the network has it.
    """

    factor: float
    samples: int
    fitted: Gain
    held: Gain | None
    kept: bool

    @property
    def text(self) -> str:
        """Return for example `all × 1.05 +0.7 ± 0.3 dB on 192 fitted samples, +1.6 ± 0.9 dB on those held out`."""
        held = f", {self.held.text} on those held out" if self.held else ""
        return f"all × {self.factor:g} {self.fitted.text} on {self.samples} fitted samples{held}{self._remark}"

    @property
    def _remark(self) -> str:
        return "" if self.kept else " (left out)"


@dataclass(frozen=True, slots=True)
class HeldOutChoice:
    """A choice by samples that nothing was fitted to.

    rule, repairs: what the network has. rules: other rule → its gain over the default rule. gains: repair → what it
    gains, or would gain, beside the others that were chosen. default_rule, default_repairs: the default from statistics
    alone, which it is compared with. db, default_db: SQNR of the outputs of both; gain: the difference, as far as one
    half of the samples predicts it for the other. fitted, held: numbers of samples that were fitted to, and held out.
    refitted: afterwards the network was fitted to all of them.
    outputs: how many were compared, and how many there are. before_rounding: repairs whose gain was measured with
    weights that were rounded to the nearest. scales: a factor for all scales, which the figures are without; None where
    none was tried.
    """

    rule: str
    repairs: tuple[str, ...]
    rules: Mapping[str, Gain]
    gains: Mapping[str, Gain]
    default_rule: str
    default_repairs: tuple[str, ...]
    db: float
    default_db: float
    gain: Gain
    fitted: int
    held: int
    refitted: bool
    outputs: tuple[int, int]
    before_rounding: tuple[str, ...] = ()
    scales: ScaleFactor | None = None

    @property
    def text(self) -> str:
        """The outcome in one line."""
        compared, every = self.outputs
        what = "outputs" if compared == every else f"{compared} of {every} outputs"
        figure = f"{what} at {format_db(self.db)} on {self.held} samples that nothing was fitted to"
        again = f"; then all scales × {self.factor:g}" if self.factor != 1.0 else ""
        again += "; then fitted to all samples" if self.refitted else ""
        if self.is_default:
            return f"{figure}, by the default ({self.default_text}); nothing else left less noise{again}"
        chosen = f"{self.rule}, {repairs_text(self.repairs)}"
        default = f"{format_db(self.default_db)} by the default ({self.default_text}), a gain of {self.gain.text}"
        return f"{figure}, by {chosen}; {default}{again}"

    @property
    def document(self) -> dict[str, Any]:
        """The choice for programs."""
        return asdict(self)

    @property
    def lines(self) -> tuple[str, ...]:
        """The outcome, and why, in at most two lines."""
        return (self.text, self.why) if self.why else (self.text,)

    @property
    def factor(self) -> float:
        """The factor that all scales in INT8 have beyond those of the rule; 1 without one."""
        return self.scales.factor if self.scales and self.scales.kept else 1.0

    @property
    def is_default(self) -> bool:
        """True if rule and repairs are the default from statistics alone."""
        return (self.rule, self.repairs) == (self.default_rule, self.default_repairs)

    @property
    def default_text(self) -> str:
        """The default in words."""
        return f"{self.default_rule}, {repairs_text(self.default_repairs)}"

    @property
    def why(self) -> str:
        """The comparisons and their outcome in one line; empty if there was nothing to compare."""
        rules = [f"{rule} {gain.text}" for rule, gain in self.rules.items()]
        repairs = [f"{name} {gain.text}{self._remark(name)}" for name, gain in self.gains.items()]
        parts = [f"rules, against {self.default_rule}: {', '.join(rules)}"] if rules else []
        parts += [f"repairs: {', '.join(repairs)}"] if repairs else []
        return "; ".join([*parts, *([f"scales: {self.scales.text}"] if self.scales else [])])

    def _remark(self, repair: str) -> str:
        if repair not in self.repairs:
            return " (left out)"
        return " (before rounding)" if repair in self.before_rounding and "round" in self.repairs else ""


def repairs_text(names: tuple[str, ...]) -> str:
    """Return `equalize, round and bias`, `bias alone` or `no repairs`."""
    if not names:
        return "no repairs"
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else f"{names[0]} alone"
