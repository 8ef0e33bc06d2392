"""Evaluations beside each other: what moved from one run to the next, and whether that is more than chance.

A move of a drop from one run to the next is called real where it is larger than √(h₁² + h₂²), h being half the width of
the two 95 % intervals: the interval of a difference of two independent figures. On the same samples with the same
reference the two drops go along with each other, so that this errs on the side of caution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from quantkit.errors import DataError, UsageError
from quantkit.evaluation.result import Evaluation, MetricDifference, ModelScore
from quantkit.view import Block, Remarks, RichDisplay, ViewTable


@dataclass(frozen=True, slots=True)
class EvaluationRun:
    """An evaluation, and what it is called: its file, as a rule."""

    name: str
    evaluation: Evaluation

    def score(self, model: str) -> ModelScore | None:
        """The model of that name."""
        return next((m for m in self.evaluation.models if m.name == model), None)


@dataclass(frozen=True, slots=True)
class MetricMove:
    """A model in two runs that follow each other.

    metric, drop: how much more the second run has; points where the metric is a share, None where it was not measured.
    beyond: whether the drop moved by more than both intervals explain; None where there is no interval.
    """

    model: str
    first: str
    second: str
    metric: float | None
    drop: float | None
    agreement: float | None
    beyond: bool | None
    same_model: bool
    """Whether it is the same file."""

    def text(self, unit: str) -> str:
        """One sentence."""
        what = f"{self.model}: from {self.first} to {self.second}"
        kept = ", the same file" if self.same_model else ""
        if self.drop is not None:
            figure = f"the drop moves by {self.drop:+.2f}{unit}"
            told = {True: "beyond the intervals", False: "within the intervals", None: "no interval is known"}
            return f"{what} {figure}, {told[self.beyond]}{kept}"
        if self.metric is not None:
            return f"{what} the metric moves by {self.metric:+.2f}{unit}{kept}"
        if self.agreement is not None:
            return f"{what} the agreement moves by {100.0 * self.agreement:+.2f} points{kept}"
        return f"{what} nothing can be compared{kept}"


@dataclass(frozen=True, slots=True)
class Comparison(RichDisplay):
    """Runs side by side, in the order in which they were given. moves: of models that several runs have."""

    runs: tuple[EvaluationRun, ...]
    metric: str | None
    share: bool
    moves: tuple[MetricMove, ...]
    notes: tuple[str, ...]

    @property
    def unit(self) -> str:
        """What a difference is counted in."""
        return " points" if self.share else ""

    @property
    def models(self) -> tuple[str, ...]:
        """All models, in the order in which they first appear."""
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
            f"{len(self.runs)} runs{', differences in points' if self.share else ''}",
            ViewTable(("model", "run", *score_columns(self.metric)), rows, frozenset({0, 1, 2})),
            Remarks([*self.notes, *(move.text(self.unit) for move in self.moves)]),
        )


def compare_runs(runs: Sequence[EvaluationRun], *, force: bool = False) -> Comparison:
    """Runs beside each other. force: also where they saw other data, of which the result then tells.

    UsageError where there are fewer than two or their metrics differ, DataError where their data differ.
    """
    if len(runs) < 2:
        raise UsageError("a comparison needs two evaluations", remedy="quantkit compare A.json B.json")
    first = runs[0]
    notes: list[str] = []
    for run in runs[1:]:
        if (run.evaluation.metric, run.evaluation.share) != (first.evaluation.metric, first.evaluation.share):
            raise UsageError(
                f"{run.name} measures {run.evaluation.metric or 'no metric'}, "
                f"{first.name} {first.evaluation.metric or 'none'}",
                remedy="evaluate with the same --metric first",
            )
        other = differing_inputs(first.evaluation, run.evaluation)
        if other and not force:
            raise DataError(
                f"{run.name} and {first.name} were measured on other {other}",
                remedy="evaluate on the same data, or see both all the same with --force",
            )
        if other:
            notes.append(
                f"{run.name} and {first.name} were measured on other {other}: they say little about each other"
            )
    for one, two in pairwise(runs):
        if one.evaluation.reference.sha256 != two.evaluation.reference.sha256:
            notes.append(f"{two.name} has another reference than {one.name}: their drops are from different heights")
    moves = [move for one, two in pairwise(runs) for move in moves_between(one, two)]
    return Comparison(tuple(runs), first.evaluation.metric, first.evaluation.share, tuple(moves), tuple(notes))


def differing_inputs(first: Evaluation, second: Evaluation) -> str:
    """What the figures of two evaluations rest on that is not the same; empty where all is."""
    # By where they come from only where they are no classes, or an older quantkit did not keep what they are.
    labels = "labels_sha256" if all(e.provenance.get("labels_sha256") for e in (first, second)) else "labels"
    parts = {"data": "data", labels: "labels", "preprocess": "preprocessing"}
    found = [name for key, name in parts.items() if provenance_identity(first, key) != provenance_identity(second, key)]
    return " and ".join(found)


def provenance_identity(evaluation: Evaluation, key: str) -> object:
    """What makes a part of the provenance the same: of data their content, whatever the folder is called."""
    known = evaluation.provenance.get(key)
    return known.get("content") if isinstance(known, dict) else known


def moves_between(one: EvaluationRun, two: EvaluationRun) -> list[MetricMove]:
    """The models of two runs."""
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
                known_difference(after.agreement, before.agreement),
                is_beyond_intervals(lost[0], lost[1]) if lost[0] and lost[1] else None,
                before.sha256 == after.sha256,
            )
        )
    return found


def known_difference(after: float | None, before: float | None) -> float | None:
    """after − before where both are known."""
    return None if after is None or before is None else after - before


def is_beyond_intervals(first: MetricDifference, second: MetricDifference) -> bool | None:
    """Whether two drops differ by more than their intervals; None where one has none."""
    halves = [(d.high - d.low) / 2 for d in (first, second)]
    if not all(map(math.isfinite, halves)):
        return None
    return abs(second.value - first.value) > math.hypot(*halves)
