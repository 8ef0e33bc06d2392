"""The step that draws the Q/DQ model with everything that the other steps found out about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from quantkit.mapping.layout import has_layout
from quantkit.mapping.network_map import network_map
from quantkit.mapping.options import MapOptions
from quantkit.project.engine_steps import EngineStepResult
from quantkit.project.inputs import QDQ_ENGINE, RunPlan
from quantkit.project.layers_step import LAYERS, read_layers
from quantkit.project.steps import RunSteps
from quantkit.project.store import StepOutcome

MOST_NODES = 5_000
"""Nodes up to which a run draws a map, which takes some seconds then."""


def draws_map(plan: RunPlan) -> bool:
    """Return True if a run draws a map: the library for it is installed, and the network is not too large."""
    return has_layout() and len(plan.model.proto.graph.node) <= MOST_NODES


@dataclass(frozen=True, slots=True)
class MapSourceSteps:
    """The outcomes of the steps whose results the map shows."""

    statistics: StepOutcome
    model: StepOutcome
    layers: StepOutcome | None
    compiled: StepOutcome | None
    engines: EngineStepResult


def map_step(steps: RunSteps, of: MapSourceSteps) -> StepOutcome | None:
    """Draw the Q/DQ model; None if that is not possible here, which becomes a note if something failed.

    Kernels are those of its engine if one was built, else those that it compiles to.
    """
    plan = steps.plan
    names = plan.published_names()
    if not draws_map(plan):
        if has_layout():
            steps.notes.append(f"no map was drawn of this large network: quantkit map {names['model']} draws it")
        return None
    engine = next((path for path in of.engines.engines if path.name == f"{plan.stem}.{QDQ_ENGINE}.engine"), None)

    def work(folder: Path) -> tuple[str, ...]:
        options = MapOptions(
            statistics=of.statistics.file(names["statistics"]),
            layers=None if of.layers is None else read_layers(of.layers.file(LAYERS)),
            engine=engine,
            compiled=None if engine or of.compiled is None else of.compiled.file(names["compiled"]),
        )
        network_map(steps.network_of(of.model), folder / names["map"], options=options)
        return ()

    inputs = {
        "model": of.model.digest,
        "statistics": of.statistics.digest,
        "layers": of.layers and of.layers.digest,
        "compiled": of.compiled and of.compiled.digest,
        "engines": of.engines.digest,
    }
    return steps.attempt("map", inputs, work, "no map was drawn")
