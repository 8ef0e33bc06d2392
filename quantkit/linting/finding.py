"""Defects that a rule finds in the Q/DQ nodes of a network, and findings: defects with the rule that found them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "slow", "accuracy"]
"""error: TensorRT rejects the network, or computes something else; slow: it runs, but not as fast as it could;
accuracy: it runs, but may be less exact than it could be."""
SEVERITIES: tuple[Severity, ...] = ("error", "slow", "accuracy")


@dataclass(frozen=True, slots=True)
class Defect:
    """One thing that is wrong. where: name of the node, or of its first output if it has none."""

    where: str
    problem: str
    remedy: str
    fixable: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. where: name of the node, or of its first output if it has none."""

    rule: str
    severity: Severity
    where: str
    problem: str
    remedy: str
    fixable: bool = False
