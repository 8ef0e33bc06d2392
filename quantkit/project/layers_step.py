"""The step that finds where the Q/DQ model loses accuracy: its layers, ranked on part of the calibration data."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

from quantkit.artifact import text_bytes
from quantkit.document import DocumentType
from quantkit.errors import ModelError, QuantkitError
from quantkit.project.steps import RunSteps
from quantkit.project.store import StepOutcome
from quantkit.sensitivity.layers import layers
from quantkit.sensitivity.options import SAMPLES, LayersOptions
from quantkit.sensitivity.result import Sensitivity

STEP = "layers"
LAYERS = "layers.json"


def layers_step(steps: RunSteps, model: StepOutcome) -> StepOutcome | None:
    """Measure the layers of the Q/DQ model; None if that is disabled, or impossible, which becomes a note."""
    plan, data = steps.plan, steps.plan.calibration
    if not plan.settings.evaluate.layers:
        return None

    def work(folder: Path) -> tuple[str, ...]:
        few = replace(data.options, limit=min(SAMPLES, data.options.limit or SAMPLES))
        made = layers(
            steps.for_pass(plan.model),
            against=steps.for_pass(steps.network_of(model)),
            data=data.source,
            preprocess=data.spec,
            options=LayersOptions(data=few, **steps.division(STEP)),
            phase=steps.watcher.phases,
        )
        (folder / LAYERS).write_bytes(text_bytes(json.dumps(asdict(made), ensure_ascii=False)))
        return ()

    known = data.identity
    inputs = known and {"model": plan.model.sha256, "Q/DQ": model.digest, "data": known}
    return steps.attempt(STEP, inputs, work, "layers were not measured", ModelError)


MEASURED = DocumentType[Sensitivity](
    Sensitivity, "the measurement of a network's layers", QuantkitError, "run with --clean", nonfinite=True
)


def read_layers(path: Path) -> Sensitivity:
    """Read the output of `layers_step`. QuantkitError if it is damaged."""
    return MEASURED.read(path)
