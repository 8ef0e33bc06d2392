"""compare: compare evaluations over time."""

from __future__ import annotations

import os
from collections.abc import Sequence

from quantkit.evaluation.comparison import Comparison, EvaluationRun, compare_runs
from quantkit.evaluation.json_document import EVALUATION, parse_evaluation
from quantkit.evaluation.result import Evaluation
from quantkit.paths import given_list, given_path


def compare(runs: Sequence[str | os.PathLike[str] | Evaluation], *, force: bool = False) -> Comparison:
    """Compare evaluations in the given order: files that `evaluate --output` wrote, or evaluations.

    force: even if they used different data, labels or preprocessing. DataError if they did, and if a file is not an
    evaluation; UsageError if there are fewer than two, or if their metrics differ.
    """
    runs = given_list(runs, "runs")
    names = [f"run {i}" if isinstance(r, Evaluation) else given_path(r, "a run").name for i, r in enumerate(runs, 1)]
    read = [
        EvaluationRun(
            str(run) if names.count(name) > 1 and not isinstance(run, Evaluation) else name, read_evaluation(run)
        )
        for run, name in zip(runs, names, strict=True)
    ]
    return compare_runs(read, force=force)


def read_evaluation(run: str | os.PathLike[str] | Evaluation) -> Evaluation:
    """Return the evaluation itself, or the one in a file. DataError."""
    if isinstance(run, Evaluation):
        return run
    return parse_evaluation(EVALUATION.read_untyped(run), str(run))
