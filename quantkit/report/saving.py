"""Saving of values from Python: as a page, as JSON or as Markdown, by the suffix of the file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantkit.artifact import check_destinations, nulls_for_nonfinite, text_bytes, write_whole
from quantkit.errors import UsageError
from quantkit.evaluation.json_document import evaluation_json
from quantkit.evaluation.result import Evaluation
from quantkit.paths import given_path
from quantkit.report.html import evaluation_page, sensitivity_page, tuning_page
from quantkit.report.markdown import markdown_text
from quantkit.sensitivity.result import Sensitivity, sensitivity_document
from quantkit.tuning.json_document import tuning_document
from quantkit.tuning.result import Tuning
from quantkit.view import SavableDisplay


@dataclass(frozen=True, slots=True)
class SavedForm:
    """How values of one class are saved. page: as HTML. document: as JSON values, those of `--json`."""

    page: Callable[[Any], str]
    document: Callable[[Any], Mapping[str, Any]]


FORMS: Mapping[type[SavableDisplay], SavedForm] = {
    Evaluation: SavedForm(evaluation_page, evaluation_json),
    Sensitivity: SavedForm(sensitivity_page, sensitivity_document),
    Tuning: SavedForm(tuning_page, lambda tuning: tuning_document(tuning, evaluation_json(tuning.report))),
}


def save_value(value: SavableDisplay, path: str | os.PathLike[str], *, force: bool) -> Path:
    """Write a value in the form that the suffix names; return the path. UsageError, StaleError, OutputError."""
    target = given_path(path, "path")
    form = FORMS[type(value)]
    texts: dict[str, Callable[[], str]] = {
        ".html": lambda: form.page(value),
        ".json": lambda: json_text(form.document(value)),
        ".md": lambda: markdown_text(value),
    }
    chosen = texts.get(target.suffix.lower())
    if chosen is None:
        stem = target.with_suffix("") if target.name else target / "report"
        raise UsageError(
            f"{target} has the suffix {target.suffix!r}, which names no format of a report",
            remedy=f"name it {stem}.html (a page), {stem}.json (for programs) or {stem}.md (to paste into an issue)",
        )
    may_replace = check_destinations([target], force=force, option="path=")
    write_whole(target, text_bytes(chosen()), "path=", force=may_replace(target))
    return target


def json_text(document: Mapping[str, Any]) -> str:
    """Return JSON values as indented text, with null for numbers that are not finite."""
    return json.dumps(nulls_for_nonfinite(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
