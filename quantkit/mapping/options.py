"""Options of `network_map`: what a map is made of, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from quantkit.backends.tensorrt_rtx.record import CompiledRecord
from quantkit.errors import UsageError
from quantkit.mapping.sources import MapFiles
from quantkit.paths import AnyPath
from quantkit.rules import DEFAULT_RULE, Rule, as_rules
from quantkit.sensitivity.result import Sensitivity
from quantkit.statistics import Statistics


@dataclass(frozen=True, slots=True)
class MapOptions:
    """Options of `network_map`; every source may be missing.

    statistics: of the float network. layers: a value of `layers`, or the file of `quantkit layers --json`. engine: an
    engine with its record beside it. profile: its times, by `trtexec --exportProfile`. compiled: a record of `quantkit
    compile`. compile_for: compile the network for this architecture (`sm86`) with TensorRT-RTX now; shapes: of dynamic
    inputs for that, as for `build`. rule: chooses scales from the statistics where the network has no Q/DQ. fold: fold
    blocks that come several times in one form. force: replace an existing file.
    """

    statistics: AnyPath | Statistics | None = None
    layers: AnyPath | Sensitivity | None = None
    engine: AnyPath | None = None
    profile: AnyPath | None = None
    compiled: AnyPath | CompiledRecord | None = None
    compile_for: str | None = None
    shapes: tuple[str, ...] = ()
    rule: str | Rule = DEFAULT_RULE
    fold: bool = True
    force: bool = False

    def __post_init__(self) -> None:
        if self.compile_for is not None and (self.compiled is not None or self.engine is not None):
            other = "--compiled" if self.compiled is not None else "--engine"
            raise UsageError(f"--compile-for and {other} both say where nodes run", remedy="give one of them")
        if self.shapes and self.compile_for is None:
            raise UsageError("--shapes has no effect: it is for --compile-for", remedy="leave it out")

    def chosen_rule(self) -> Rule:
        """Return the rule. UsageError for an unknown one, and for several."""
        rules = as_rules(self.rule)
        if len(rules) != 1:
            raise UsageError("a map shows the scales of one rule", remedy="name one, or best")
        return rules[0]

    def files(self) -> MapFiles:
        """Return the sources."""
        return MapFiles(self.statistics, self.layers, self.engine, self.compiled, self.profile)


class MapFields(TypedDict, total=False):
    """The keywords of `network_map` that are fields of `MapOptions`."""

    statistics: AnyPath | Statistics | None
    layers: AnyPath | Sensitivity | None
    engine: AnyPath | None
    profile: AnyPath | None
    compiled: AnyPath | CompiledRecord | None
    compile_for: str | None
    shapes: str | Sequence[str]
    rule: str | Rule
    fold: bool
    force: bool
