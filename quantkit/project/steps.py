"""The steps of a run, one after the other: what each said, how long it took, and whether it was done at all."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantkit.artifact import text_bytes
from quantkit.progress import Progress
from quantkit.project.inputs import Plan
from quantkit.project.store import Outcome, Store

SAID = "said.json"


@dataclass(frozen=True, slots=True)
class Step:
    """A step as it went. seconds: 0 where it was reused."""

    name: str
    reused: bool
    seconds: float


class Steps:
    """The steps of a run, one after the other, with what was said and how long each took."""

    def __init__(self, plan: Plan, store: Store, phase: Callable[[str], None], progress: Callable[[str], Progress]):
        self.plan, self._store = plan, store
        self._phase, self.progress = phase, progress
        self.taken: list[Step] = []
        self.notes: list[str] = list(plan.notes)

    def take(self, name: str, inputs: Mapping[str, Any] | None, work: Callable[[Path], tuple[str, ...]]) -> Outcome:
        """Do a step, or reuse it; what `work` says is said again when it is reused.

        What files are called decides about the outcome of every step: they are called after the model's file.
        """

        def noted(folder: Path) -> None:
            self._phase(name)
            said = work(folder)
            (folder / SAID).write_bytes(text_bytes(json.dumps(said, ensure_ascii=False)))

        started = time.monotonic()
        known = None if inputs is None else {**inputs, "stem": self.plan.stem}
        outcome = self._store.done(name, known, noted)
        self.taken.append(Step(name, outcome.reused, 0.0 if outcome.reused else time.monotonic() - started))
        self.notes += json.loads(outcome.file(SAID).read_text(encoding="utf-8"))
        return outcome
