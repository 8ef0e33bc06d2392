"""A lint rule as a value: what it is called, how bad its findings are, how it finds them, and how they are fixed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from quantkit.linting.finding import Defect, Finding, Severity
from quantkit.linting.graph_edit import GraphEdit
from quantkit.qdq.reader import QdqGraph


@dataclass(frozen=True, slots=True)
class LintRule:
    """A rule about the Q/DQ nodes of a network.

    summary: one clause for the documentation. fix: edits away all fixable defects so that the copy computes the same
    numbers, bit for bit; fix_summary: what it does. tensorrt: the versions that the rule is about; "" for all.
    """

    name: str
    severity: Severity
    summary: str
    find: Callable[[QdqGraph], Iterable[Defect]]
    fix: Callable[[GraphEdit], object] | None = None
    fix_summary: str = "no"
    tensorrt: str = ""

    def findings(self, qdq: QdqGraph) -> Iterator[Finding]:
        """Yield the defects of a network as findings of this rule."""
        for found in self.find(qdq):
            yield Finding(
                self.name, found.severity or self.severity, found.where, found.problem, found.remedy, found.fixable
            )
