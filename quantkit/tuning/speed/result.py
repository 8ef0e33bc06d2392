"""The result of a tuning by time: all candidates with their times, and the one to deploy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quantkit.tuning.speed.candidate import CandidateStatus, EngineKind, SpeedCandidate
from quantkit.tuning.speed.engine_choice import Objective, fastest_by_batch, gaining_candidates, relative_times, ties
from quantkit.view import ViewTable, true_minus


@dataclass(frozen=True, slots=True)
class SpeedTuning:
    """The result of a tuning by time.

    machine: GPU and library. batches: the batch sizes that count. limit, seconds: allowed and taken. nodes: number of
    nodes that read behind a pair if nothing is kept float.
    """

    model: str
    objective: Objective
    machine: str
    batches: tuple[int, ...]
    level: int
    candidates: tuple[SpeedCandidate, ...]
    chosen: SpeedCandidate
    nodes: int
    limit: float
    seconds: float
    half: bool = False
    """True if FP16 is in the graphs, as TensorRT 11 needs it."""
    notes: tuple[str, ...] = ()

    @property
    def reference(self) -> SpeedCandidate:
        """The FP16 engine."""
        return next(c for c in self.candidates if c.kind is EngineKind.FP16)

    @property
    def builds(self) -> int:
        """Number of engines that were built."""
        return sum(candidate.seconds is not None for candidate in self.candidates)

    @property
    def best_at(self) -> Mapping[int, str]:
        """Batch size → the fastest candidate for it alone."""
        return fastest_by_batch(self.candidates)

    @property
    def ties(self) -> tuple[str, ...]:
        """The candidates whose times do not differ from the chosen one's by more than chance."""
        return ties(self.candidates, self.chosen)

    @property
    def verdict(self) -> str:
        """A sentence: which engine to deploy, and how much faster than FP16 it is."""
        chosen, where = self.chosen, f"on {self.machine}"
        if chosen.kind is EngineKind.FP16:
            return f"take FP16: {self._why_fp16(where)}"
        found = f"{chosen.name}: {self.gain_text(chosen)} {where}"
        if chosen.kind is EngineKind.TABLE:
            return f"{found}. TensorRT chooses by the calibration table what is INT8."
        kept = len(chosen.placement.kept)
        stays = f"{kept} of {self.nodes} quantizable nodes stay float" if kept else "no node stays float"
        return f"{found}; {stays}."

    def _why_fp16(self, where: str) -> str:
        """Return why FP16 is chosen: INT8 is not worth it, or is not known to be."""
        others = [item for item in relative_times(self.candidates) if item.candidate is not self.reference]
        if not others:
            return f"no INT8 engine could be built and timed {where}."
        gaining = gaining_candidates(self.candidates)
        first = gaining[0].candidate.name if gaining else ""
        if gaining and all(item.candidate.figure is None for item in gaining):
            return f"no evaluation was left for engines that are faster {where}, like {first} (--max-evaluations)."
        if gaining:
            why = f"no INT8 engine that is faster ({first}) is within the budget"
        else:
            nearest = others[0]
            share = f"{nearest.candidate.name} takes {nearest.times.median:.2f} times as long"
            why = f"no INT8 engine is faster by more than the noise ({share})"
        return f"{why} {where}. INT8 is not worth it here."

    def gain_text(self, candidate: SpeedCandidate) -> str:
        """Return for example `1.44× as fast as FP16 at batch 32 (0.767 against 1.104 ms)`."""
        parts = []
        for batch, times in candidate.times.items():
            theirs = self.reference.times[batch].median
            parts.append(f"{theirs / times.median:.2f}× at batch {batch} ({times.median:.3f} against {theirs:.3f} ms)")
        return f"faster than FP16, {', '.join(parts)}"

    def table(self) -> ViewTable:
        """Return all candidates with their times as a table."""
        head = ("candidate", "float nodes", *(f"ms at batch {batch}" for batch in self.batches), "drop", "outcome")
        rows = []
        for candidate in self.candidates:
            times = [candidate.times[b].text() if b in candidate.times else "" for b in self.batches]
            kept = str(len(candidate.placement.kept)) if candidate.kind is EngineKind.QDQ else ""
            drop = "" if candidate.figure is None else true_minus(f"{candidate.figure.drop:.2f}")
            outcome = "chosen" if candidate is self.chosen else candidate.outcome
            rows.append((candidate.name, kept, *times, drop, outcome))
        return ViewTable(head, rows, frozenset({0, len(head) - 1}))

    def document(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        relative = {item.candidate.name: item.times for item in relative_times(self.candidates)}
        candidates = []
        for candidate in self.candidates:
            times = relative.get(candidate.name)
            share = None if times is None else {"median": times.median, "spread": times.spread}
            candidates.append({**candidate.document(), "relative_to_fp16": share})
        return {
            "objective": self.objective.value,
            "chosen": self.chosen.name,
            "kind": self.chosen.kind.value,
            "verdict": self.verdict,
            "ties": list(self.ties),
            "best_at": {str(batch): name for batch, name in self.best_at.items()},
            "machine": self.machine,
            "fp16_in_graph": self.half,
            "batches": list(self.batches),
            "level": self.level,
            "builds": self.builds,
            "build_seconds": round(sum(c.seconds or 0.0 for c in self.candidates), 3),
            "limit": self.limit,
            "seconds": round(self.seconds, 3),
            "nodes": self.nodes,
            "candidates": candidates,
            "notes": list(self.notes),
        }


def time_left_note(candidates: tuple[SpeedCandidate, ...], seconds: float) -> tuple[str, ...]:
    """Return a note that names the candidates for which no time was left, and the time that would be expected to do.

    seconds: that the search took.
    """
    left_out = [c for c in candidates if c.status is CandidateStatus.NO_TIME]
    if not left_out:
        return ()
    names = ", ".join(c.name for c in left_out)
    minutes = math.ceil((seconds + math.fsum(c.expected or 0.0 for c in left_out)) / 6.0) / 10.0
    remedy = f"--tune-time {minutes:g} would be enough for them by the builds so far"
    return (f"not tried, as no time was left: {names} ({remedy})",)
