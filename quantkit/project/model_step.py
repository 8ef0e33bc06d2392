"""The step of a run that makes the Q/DQ model: `quantize --data` with the calibration data, and what these chose."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from quantkit.artifact import text_bytes
from quantkit.document import DocumentType
from quantkit.errors import QuantkitError
from quantkit.project.inputs import quantize_options
from quantkit.project.settings import Settings
from quantkit.project.steps import RunSteps
from quantkit.project.store import StepOutcome
from quantkit.quantization.choice_record import HeldOutChoice
from quantkit.quantization.quantize import quantize
from quantkit.repairs.registry import needs_data

CHOICE = "choice.json"
CHOICES = DocumentType[HeldOutChoice | None](
    HeldOutChoice | None, "the choice of a Q/DQ model", QuantkitError, "run with --clean", nonfinite=True
)


def quantizes_with_data(settings: Settings) -> bool:
    """Return True if the Q/DQ model needs the data: for a choice, or for a repair that runs the network."""
    repairs = settings.quantize.repairs
    return settings.rule is None or repairs is None or needs_data(repairs)


def model_step(steps: RunSteps, statistics: StepOutcome) -> StepOutcome:
    """Make the Q/DQ model as `quantize --data` does: what the settings leave open is chosen by the data."""
    plan = steps.plan
    names, chosen, data = plan.published_names(), plan.settings.quantize, plan.calibration
    with_data = quantizes_with_data(plan.settings)

    def work(folder: Path) -> tuple[str, ...]:
        options = replace(quantize_options(plan.settings, plan.version), data=data.options)
        made = quantize(
            plan.model,
            folder / names["model"],
            statistics=statistics.file(names["statistics"]),
            data=data.source if with_data else None,
            preprocess=data.spec,
            options=options,
            phase=steps.watcher.phases,
        )
        choice = None if made.held_out is None else asdict(made.held_out)
        (folder / CHOICE).write_bytes(text_bytes(json.dumps(choice)))
        return made.notes

    known = data.identity if with_data else {}
    inputs: dict[str, Any] | None = None
    if known is not None:
        rule = plan.settings.rule or "chosen by the data"
        about = {"model": plan.model.sha256, "statistics": statistics.digest, "rule": rule, "TensorRT": plan.version}
        inputs = about | {"data": known, "options": chosen.model_dump(mode="json")}
    return steps.execute("model", inputs, work)


def read_choice(model: StepOutcome) -> HeldOutChoice | None:
    """Return what the data chose for the Q/DQ model of a run; None where nothing was. QuantkitError."""
    return CHOICES.read(model.file(CHOICE))
