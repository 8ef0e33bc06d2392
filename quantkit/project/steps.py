"""The steps of a run in order: the notes and the duration of each, and whether it was reused."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from quantkit.artifact import text_bytes
from quantkit.document import DocumentType
from quantkit.errors import Interrupted, QuantkitError
from quantkit.executors.work_folder import remove_shards
from quantkit.graph import Model, load_model
from quantkit.progress import PhaseProgress, PlannedStep, RunWatcher
from quantkit.project.inputs import RunPlan, refuse_changed_inputs
from quantkit.project.store import StepOutcome, StepStore

SAID = "said.json"
NOTES = DocumentType[tuple[str, ...]](tuple[str, ...], "the notes of a step", QuantkitError, "run with --clean")


@dataclass(frozen=True, slots=True)
class CompletedStep:
    """A completed step. seconds: 0 if it was reused."""

    name: str
    reused: bool
    seconds: float


class RunSteps:
    """Executes the steps of a run in order and records their notes and durations."""

    def __init__(self, plan: RunPlan, store: StepStore, watcher: RunWatcher, planned: Sequence[PlannedStep]) -> None:
        """planned: every step that `execute` may be called for, in order."""
        self.plan, self.watcher = plan, watcher
        self._store, self._planned = store, {step.name for step in planned}
        watcher.planned(planned)
        self.taken: list[CompletedStep] = []
        self.notes: list[str] = list(plan.notes)
        self._read: dict[Path, Model] = {}

    def network_of(self, model: StepOutcome) -> Model:
        """Return the Q/DQ model that a step made, which is read once. ModelError."""
        path = model.file(self.plan.published_names()["model"])
        if path not in self._read:
            self._read[path] = load_model(path)
        return self._read[path]

    def for_pass(self, network: Model) -> Model | Path:
        """Return a network as a pass takes it: as it was read, or its file for workers, which read it themselves."""
        return network.path if self.plan.settings.placement.divides else network

    def division(self, name: str) -> dict[str, Any]:
        """Return the options of a pass that is divided among workers, whose results wait until the step is complete."""
        placement = self.plan.settings.placement
        if not placement.divides:
            return {}
        return {**asdict(placement), "parts": self._store.parts_of(name), "force": True}

    def progress(self, then: str = "") -> PhaseProgress:
        """Return a receiver of the samples that the step goes through. then: the phase after the last sample."""
        return PhaseProgress(self.watcher.phases, then)

    def execute(
        self, name: str, inputs: Mapping[str, Any] | None, work: Callable[[Path], tuple[str, ...]]
    ) -> StepOutcome:
        """Execute a step or reuse its outcome; the notes returned by `work` are repeated when it is reused.

        Nothing is kept of a step during which model or data changed. Raises what `work` and `refuse_changed_inputs` do.

        The stem of the model's file is an input of every step, because output files are named after it.
        """

        def noted(folder: Path) -> None:
            self.watcher.begin(name)
            said = work(folder)
            refuse_changed_inputs(self.plan)
            (folder / SAID).write_bytes(text_bytes(json.dumps(said, ensure_ascii=False)))

        assert name in self._planned, f"bug in quantkit: the step {name} was not planned"
        started = time.monotonic()
        known = None if inputs is None else {**inputs, "stem": self.plan.stem}
        outcome = self._store.execute(name, known, noted)
        remove_shards(self._store.parts_of(name))
        seconds = 0.0 if outcome.reused else time.monotonic() - started
        self.taken.append(CompletedStep(name, outcome.reused, seconds))
        self.watcher.end(name, seconds, reused=outcome.reused)
        self.notes += NOTES.read(outcome.file(SAID))
        return outcome

    def attempt(
        self,
        name: str,
        inputs: Mapping[str, Any] | None,
        work: Callable[[Path], tuple[str, ...]],
        failure: str,
        kinds: type[QuantkitError] | tuple[type[QuantkitError], ...] = QuantkitError,
    ) -> StepOutcome | None:
        """Execute a step that a run can do without: None, and a note that begins with `failure`, if it fails.

        kinds: errors that become a note; others, and Interrupted, are raised.
        """
        try:
            return self.execute(name, inputs, work)
        except Interrupted:
            raise
        except kinds as error:
            self.notes.append(f"{failure}: {error.summary}")
            return None
