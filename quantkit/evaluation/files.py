"""What an evaluation leaves on disk."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from quantkit.artifact import check_writable, refuse_existing, refuse_overwriting, text_bytes, write_all
from quantkit.errors import UsageError
from quantkit.evaluation.json_document import evaluation_json
from quantkit.evaluation.result import Evaluation


def refuse_unwritable(places: Mapping[str, Path | None], *, read: Iterable[object] = (), force: bool) -> None:
    """Before the work. places: option → what it names; None where it is not given. OutputError, StaleError where
    something is there, UsageError where two are the same, or one of them is among what is `read`."""
    read = tuple(read)
    seen: set[Path] = set()
    for option, path in places.items():
        if path is None:
            continue
        if path.absolute() in seen:
            raise UsageError(f"{path} is named for two files", remedy=f"give another {option}")
        seen.add(path.absolute())
        refuse_existing(path, force=force, option=option)
        check_writable(path, option)
        refuse_overwriting([path], read, option)


def write_evaluation(evaluation: Evaluation, output: Path | None, others: Mapping[Path, bytes]) -> Evaluation:
    """Write the evaluation as JSON to `output`, and what else there is, all or nothing; it then knows its files."""
    files = dict(others)
    places = ([] if output is None else [output]) + list(files)
    made = replace(evaluation, files=tuple(places))
    if output is not None:
        text = json.dumps(evaluation_json(made), indent=2, ensure_ascii=False, allow_nan=False)
        files = {output: text_bytes(f"{text}\n"), **files}
    write_all(files)
    return made
