"""Comparison of two tables, and of a table with the tensors of a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantkit.table.table import CalibrationTable
from quantkit.view import Block, RichDisplay, ViewTable


@dataclass(frozen=True, slots=True)
class TableDifference(RichDisplay):
    """Differences of table `b` from `a`. `ratios`: b/a of the scales of common tensors, worst first; inf if a is 0."""

    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    ratios: dict[str, float]
    headers: tuple[str, str]

    @property
    def equal(self) -> bool:
        """True if both give every tensor the same scale."""
        return not self.only_a and not self.only_b and all(r == 1.0 for r in self.ratios.values())

    @property
    def worst(self) -> float:
        """The largest relative deviation |b/a − 1|; 0 without common tensors."""
        return max((abs(r - 1.0) for r in self.ratios.values()), default=0.0)

    def _view_(self) -> Sequence[Block]:
        other = [(name, f"{ratio:.4g}") for name, ratio in self.ratios.items() if ratio != 1.0]
        lone = [(name, "only in the first") for name in self.only_a]
        lone += [(name, "only in the second") for name in self.only_b]
        return (
            f"{self.headers[0]} and {self.headers[1]}: {len(self.ratios)} tensors in both, "
            f"{len(other)} with different scales",
            ViewTable(("tensor", "second/first"), other),
            ViewTable(("tensor", "where"), lone, frozenset({0, 1})),
        )


def diff(a: CalibrationTable, b: CalibrationTable) -> TableDifference:
    """Compare two tables by tensor name."""
    ratios = {name: scale_ratio(a.scales[name], b.scales[name]) for name in a.scales if name in b.scales}
    return TableDifference(
        tuple(n for n in a.scales if n not in b.scales),
        tuple(n for n in b.scales if n not in a.scales),
        dict(sorted(ratios.items(), key=lambda item: -abs(item[1] - 1.0))),
        (a.header.text, b.header.text),
    )


def scale_ratio(a: float, b: float) -> float:
    """Return b/a; 1 if both are 0."""
    if a == b:
        return 1.0
    return b / a if a else float("inf")


@dataclass(frozen=True, slots=True)
class Coverage(RichDisplay):
    """The coverage of a network by a table. `extra` names are only in the table; TensorRT ignores them."""

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]

    @property
    def share(self) -> float:
        """Fraction of the network's tensors that have a scale, 0 … 1."""
        total = len(self.matched) + len(self.missing)
        return len(self.matched) / total if total else 0.0

    def _view_(self) -> Sequence[Block]:
        rows = [(name, "missing in the table") for name in self.missing]
        rows += [(name, "not in the network") for name in self.extra]
        return (
            f"{len(self.matched)} of {len(self.matched) + len(self.missing)} tensors of the network have a scale",
            ViewTable(("tensor", "what"), rows, frozenset({0, 1})),
        )


def coverage(table: CalibrationTable, tensors: Sequence[str]) -> Coverage:
    """Compare a table with the tensors of a network that need scales."""
    wanted = set(tensors)
    return Coverage(
        tuple(t for t in tensors if t in table.scales),
        tuple(t for t in tensors if t not in table.scales),
        tuple(n for n in table.scales if n not in wanted),
    )


MIN_COVERAGE = 0.9
"""Default of the fraction of a network's tensors that must have a scale."""
