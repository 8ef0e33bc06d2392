"""Defects that a rule finds in the Q/DQ nodes of a network, and findings: defects with the rule that found them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "slow", "accuracy", "disputed"]
"""error: TensorRT rejects the network, or computes something else; slow: it runs, but not as fast as it could;
accuracy: it runs, but may be less exact than it could be; disputed: NVIDIA's compiler does not agree with a rule."""
SEVERITIES: tuple[Severity, ...] = ("error", "slow", "accuracy", "disputed")


@dataclass(frozen=True, slots=True)
class Defect:
    """One thing that is wrong. where: name of the node, or of its first output if it has none.

    severity: where it is worse than what the rule finds elsewhere.
    """

    where: str
    problem: str
    remedy: str
    fixable: bool = False
    severity: Severity | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. where: name of the node, or of its first output if it has none."""

    rule: str
    severity: Severity
    where: str
    problem: str
    remedy: str
    fixable: bool = False
