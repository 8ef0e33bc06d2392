"""Evaluations compared with each other: what changed from one run to the next, and whether it is more than chance.

A change of a drop from one run to the next counts as real if it is larger than √(h₁² + h₂²), where h is half the width
of each 95 % interval: the interval of a difference of two independent values. On the same samples with the same
reference the two drops are correlated, so this is conservative.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from quantkit.errors import DataError, UsageError
from quantkit.evaluation.result import Evaluation, MetricDifference, ModelScore
from quantkit.view import Block, Remarks, RichDisplay, ViewTable, signed


@dataclass(frozen=True, slots=True)
class EvaluationRun:
    """An evaluation with a name, usually that of its file."""

    name: str
    evaluation: Evaluation

    def score(self, model: str) -> ModelScore | None:
        """Return the score of the model with that name, or None."""
        return next((m for m in self.evaluation.models if m.name == model), None)


@dataclass(frozen=True, slots=True)
class MetricMove:
    """Change of a model between two successive runs.

    metric, drop: second − first, in percentage points if the metric is a share; None if not measured. beyond: whether
    the drop changed by more than both intervals explain; None without an interval.
    """

    model: str
    first: str
    second: str
    metric: float | None
    drop: float | None
    agreement: float | None
    beyond: bool | None
    same_model: bool
    """True if both runs evaluated the same file."""

    def text(self, unit: str) -> str:
        """Return one sentence."""
        what = f"{self.model}: from {self.first} to {self.second}"
        kept = ", the same file" if self.same_model else ""
        if self.drop is not None:
            figure = f"the drop changes by {signed(self.drop)}{unit}"
            against = {True: "beyond the intervals", False: "within the intervals", None: "without a known interval"}
            return f"{what} {figure}, {against[self.beyond]}{kept}"
        if self.metric is not None:
            return f"{what} the metric changes by {signed(self.metric)}{unit}{kept}"
        if self.agreement is not None:
            return f"{what} the agreement changes by {signed(100.0 * self.agreement)} percentage points{kept}"
        return f"{what} nothing can be compared{kept}"


@dataclass(frozen=True, slots=True)
class Comparison(RichDisplay):
    """Runs side by side, in the given order. moves: changes of models that successive runs share."""

    runs: tuple[EvaluationRun, ...]
    metric: str | None
    share: bool
    moves: tuple[MetricMove, ...]
    notes: tuple[str, ...]

    @property
    def unit(self) -> str:
        """Return the unit of differences."""
        return " percentage points" if self.share else ""

    @property
    def models(self) -> tuple[str, ...]:
        """Return all models, in order of first appearance."""
        return tuple(dict.fromkeys(m.name for run in self.runs for m in run.evaluation.models))

    def _view_(self) -> Sequence[Block]:
        from quantkit.evaluation.result import score_columns, score_row_without_cpu

        rows = [
            (model, run.name, *score_row_without_cpu(score, run.evaluation))
            for model in self.models
            for run in self.runs
            if (score := run.score(model)) is not None
        ]
        return (
            f"{len(self.runs)} runs{', differences in percentage points' if self.share else ''}",
            ViewTable(("model", "run", *score_columns(self.metric)), rows, frozenset({0, 1, 2})),
            Remarks([*self.notes, *(move.text(self.unit) for move in self.moves)]),
        )


def compare_runs(runs: Sequence[EvaluationRun], *, force: bool = False) -> Comparison:
    """Compare runs. force: even if their data differ, which the result then notes.

    UsageError if there are fewer than two or their metrics differ, DataError if their data differ.
    """
    if len(runs) < 2:
        raise UsageError("a comparison needs at least two evaluations", remedy="quantkit compare A.json B.json")
    first = runs[0]
    notes: list[str] = []
    for run in runs[1:]:
        if (run.evaluation.metric, run.evaluation.share) != (first.evaluation.metric, first.evaluation.share):
            raise UsageError(
                f"{run.name} measures {run.evaluation.metric or 'no metric'}, "
                f"but {first.name} {first.evaluation.metric or 'none'}",
                remedy="evaluate with the same --metric first",
            )
        other = differing_inputs(first.evaluation, run.evaluation)
        if other and not force:
            raise DataError(
                f"{run.name} and {first.name} were measured with different {other}",
                remedy="evaluate on the same data, or compare anyway with --force",
            )
        if other:
            notes.append(
                f"{run.name} and {first.name} were measured with different {other}: comparing them means little"
            )
    notes += [f"{run.name} is in doubt: {text}" for run in runs for text in run.evaluation.doubts]
    for one, two in pairwise(runs):
        if one.evaluation.reference.sha256 != two.evaluation.reference.sha256:
            notes.append(f"{two.name} has another reference than {one.name}: their drops have different baselines")
    moves = [move for one, two in pairwise(runs) for move in moves_between(one, two)]
    return Comparison(tuple(runs), first.evaluation.metric, first.evaluation.share, tuple(moves), tuple(notes))


def differing_inputs(first: Evaluation, second: Evaluation) -> str:
    """Return the inputs in which two evaluations differ, in words; "" if there are none."""
    # Labels count by their source only if they have no digest, or if an older quantkit did not record their content.
    labels = "labels_sha256" if all(e.provenance.get("labels_sha256") for e in (first, second)) else "labels"
    parts = {"data": "data", labels: "labels", "preprocess": "preprocessing"}
    found = [name for key, name in parts.items() if provenance_identity(first, key) != provenance_identity(second, key)]
    return " and ".join(found)


def provenance_identity(evaluation: Evaluation, key: str) -> object:
    """Return the identity of a part of the provenance; for data the content, whatever the folder's name."""
    known = evaluation.provenance.get(key)
    return known.get("content") if isinstance(known, dict) else known


def moves_between(one: EvaluationRun, two: EvaluationRun) -> list[MetricMove]:
    """Return the changes of the models that two runs share."""
    unit = 100.0 if one.evaluation.share else 1.0
    metric = one.evaluation.metric
    found = []
    for before in one.evaluation.models:
        after = two.score(before.name)
        if after is None:
            continue
        lost = (before.difference, after.difference)
        found.append(
            MetricMove(
                before.name,
                one.name,
                two.name,
                unit * (after.metrics[metric] - before.metrics[metric]) if metric else None,
                lost[1].value - lost[0].value if lost[0] and lost[1] else None,
                known_difference(after.shared, before.shared),
                is_beyond_intervals(lost[0], lost[1]) if lost[0] and lost[1] else None,
                before.sha256 == after.sha256,
            )
        )
    return found


def known_difference(after: float | None, before: float | None) -> float | None:
    """Return after − before, or None if one is unknown."""
    return None if after is None or before is None else after - before


def is_beyond_intervals(first: MetricDifference, second: MetricDifference) -> bool | None:
    """Return True if two drops differ by more than their intervals explain; None without an interval."""
    halves = [(d.high - d.low) / 2 for d in (first, second)]
    if not all(map(math.isfinite, halves)):
        return None
    return abs(second.value - first.value) > math.hypot(*halves)
