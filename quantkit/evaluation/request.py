"""The arguments of `evaluate` as values: the models, opened, and what is asked about them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from quantkit.data.image_list import given_data
from quantkit.data.preprocess_choice import AnyPreprocess
from quantkit.errors import UsageError
from quantkit.evaluation.options import EvaluateOptions, EvaluationRequest
from quantkit.evaluation.subjects import Subject, SubjectOptions, list_of_models, open_subjects
from quantkit.graph import AnyModel
from quantkit.graph.load import model_place


def open_request(
    models: AnyModel | Sequence[AnyModel],
    data: Any,
    labels: str | os.PathLike[str] | Iterable[Any] | None,
    preprocess: AnyPreprocess,
    metrics: str | Sequence[str] | None,
    options: EvaluateOptions,
    held: ExitStack,
) -> tuple[tuple[Subject, ...], EvaluationRequest]:
    """Check the arguments of `evaluate`, and open the models; engines stay open as long as `held`.

    Raises what `evaluate` raises.
    """
    given = list_of_models(models)
    names = (metrics,) if isinstance(metrics, str) else tuple(metrics or ())
    refuse_idle_budget(given, options)
    data = given_data(data, labels)
    file = Path(labels) if isinstance(labels, (str, os.PathLike)) else None
    opening = SubjectOptions(options.device, options.allow_code, options.min_coverage)
    return open_subjects(given, held, opening), EvaluationRequest(data, file, preprocess, names, options)


def refuse_idle_budget(models: Sequence[Any], options: EvaluateOptions) -> None:
    """Raise UsageError if there is a budget but no model that could exceed it."""
    if options.max_drop is not None and len(models) == 1:
        raise UsageError(
            f"--max-drop {options.max_drop:g} needs a candidate to compare with the reference; only "
            f"{model_place(models[0])} was given",
            remedy="give a candidate after the reference, or omit --max-drop",
        )


def rename_subjects(subjects: Sequence[Subject], names: Sequence[str]) -> tuple[Subject, ...]:
    """Return the models under other names, if there are any. UsageError unless each model gets a name of its own."""
    if not names:
        return tuple(subjects)
    if len(names) != len(subjects) or len(set(names)) != len(names) or not all(names):
        one = len(subjects) == 1
        raise UsageError(
            f"--names {','.join(names)!r} does not fit {len(subjects)} model{'' if one else 's'}",
            remedy=f"give {'one name' if one else 'every model a name of its own'}",
        )
    return tuple(replace(subject, name=name) for subject, name in zip(subjects, names, strict=True))
