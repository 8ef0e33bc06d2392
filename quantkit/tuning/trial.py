"""Trials of a search: configurations of quantization, why each was tried, and what it loses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from quantkit.qdq.placement import Policy
from quantkit.repairs.registry import REPAIR_NAMES
from quantkit.tuning.figure import Figure


class TrialStatus(Enum):
    """How a trial ended."""

    MET = "within the budget"
    TOO_CLOSE = "too close to the budget"
    """Within the budget, but not with a standard error to spare."""
    OVER = "over the budget"
    SKIPPED = "not evaluated"
    """The proxy gave no reason to evaluate it."""
    NO_EVALUATION_LEFT = "not evaluated: no evaluations left"


@dataclass(frozen=True, slots=True)
class Recipe:
    """One configuration of quantization.

    kept: nodes that stay float in addition to those that the caller excluded, worst first. policy: None for the
    caller's. fp8: nodes that are FP8 while the others are INT8, those that save most first.
    """

    rule: str
    repairs: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    policy: Policy | None = None
    fp8: tuple[str, ...] = ()

    def keeping(self, nodes: Sequence[str]) -> Recipe:
        """Return the recipe with these nodes in float, and no others; they are not FP8 then."""
        return replace(self, kept=tuple(nodes), fp8=tuple(node for node in self.fp8 if node not in nodes))

    def text(self) -> str:
        """Return for example `mse, bias, 2 FP8, 3 float`."""
        fp8 = f"{len(self.fp8)} FP8" if self.fp8 else ""
        kept = f"{len(self.kept)} float" if self.kept else ""
        parts = [self.rule, self.repairs_text(), fp8, kept, f"policy {self.policy.value}" if self.policy else ""]
        return ", ".join(part for part in parts if part)

    def repairs_text(self) -> str:
        """Return for example `round+bias`, `all repairs`, or an empty text."""
        return "all repairs" if set(self.repairs) == set(REPAIR_NAMES) else "+".join(self.repairs)


@dataclass(frozen=True, slots=True)
class Trial:
    """One configuration that was considered.

    step: the step of the search that proposed it. why: the reason for trying it. status: how it ended. proxy_db: SQNR
    of the outputs on a few calibration samples; nan if it was not measured. figure: on the tuning part; None if it was
    not evaluated. floats: fraction of the weights that stay float because of `kept`. detail: more about the status.
    """

    recipe: Recipe
    step: str
    why: str
    status: TrialStatus
    proxy_db: float = math.nan
    figure: Figure | None = None
    floats: float = 0.0
    detail: str = ""

    @property
    def outcome(self) -> str:
        """How the trial ended, in words."""
        return f"{self.status.value}: {self.detail}" if self.detail else self.status.value


@dataclass(frozen=True, slots=True)
class RankingBasis:
    """The basis of a layer ranking: the recipe, the SQNR of its outputs in dB, and the number of samples for both."""

    recipe: Recipe
    db: float
    samples: int
