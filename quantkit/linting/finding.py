"""What can be wrong with the Q/DQ nodes of a network, as values: one rule, one slug, one severity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "slow", "accuracy"]

RULES: Mapping[str, Severity] = {
    "integer-operator": "error",
    "not-int8": "error",
    "opset": "error",
    "int32-bias": "error",
    "uint8": "error",
    "zero-point": "error",
    "zero-point-type": "error",
    "scale-value": "error",
    "scale-constant": "error",
    "scale-type": "error",
    "scale-shape": "error",
    "activation-per-channel": "error",
    "weight-axis": "error",
    "clip-apart": "error",
    "lone-quantize": "error",
    "lone-dequantize": "error",
    "integer-boundary": "slow",
    "half-quantized": "slow",
    "blocked-fusion": "slow",
    "residual-pairs": "slow",
    "concat-scales": "slow",
    "commuting-scales": "slow",
    "tensor-scales": "slow",
    "duplicate-pair": "slow",
    "subnormal-scale": "accuracy",
    "weights-per-tensor": "accuracy",
}
"""Rule → severity. error: TensorRT rejects the network, or computes something else; slow: it runs, but not as fast as
it could; accuracy: it runs, but may be less exact than it could be."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. where: name of the node, or of its first output where it has none."""

    rule: str
    severity: Severity
    where: str
    problem: str
    remedy: str
    fixable: bool = False


def finding(rule: str, where: str, problem: str, remedy: str, *, fixable: bool = False) -> Finding:
    """A finding with the severity of its rule."""
    return Finding(rule, RULES[rule], where, problem, remedy, fixable)
