"""Files that an evaluation writes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from quantkit.artifact import check_destinations, text_bytes, write_all
from quantkit.errors import UsageError
from quantkit.evaluation.json_document import evaluation_json
from quantkit.evaluation.result import Evaluation
from quantkit.paths import real_path

SUFFIXES = {"--output": ".json", "--html": ".html"}
"""Option → the suffix of the only format that it writes."""


def refuse_unwritable(places: Mapping[str, Path | None], *, read: Iterable[object] = (), force: bool) -> None:
    """Check output files before the work. places: option → path, or None.

    OutputError; StaleError if a file exists, UsageError if two are the same, if one of them is among the files that are
    `read`, or if its name says another format than it gets.
    """
    read = tuple(read)
    seen: set[Path] = set()
    for option, path in places.items():
        if path is None:
            continue
        if real_path(path) in seen:
            raise UsageError(f"two options name {path}", remedy=f"give another {option}")
        seen.add(real_path(path))
        check_destinations([path], read=read, force=force, option=option)
        if path.suffix.lower() not in ("", SUFFIXES.get(option, path.suffix.lower())):
            written = SUFFIXES[option]
            raise UsageError(
                f"{option} {path} names another format than the {written[1:].upper()} that is written",
                remedy=f"name it {path.with_suffix(written)}",
            )


def write_evaluation(
    evaluation: Evaluation, output: Path | None, others: Mapping[Path, bytes], *, force: bool = True
) -> Evaluation:
    """Write the evaluation as JSON to `output`, with other files, all or nothing; return it with their paths.

    force: False where no file may lie there. OutputError, StaleError.
    """
    files = dict(others)
    places = ([] if output is None else [output]) + list(files)
    made = replace(evaluation, files=tuple(places))
    if output is not None:
        text = json.dumps(evaluation_json(made), indent=2, ensure_ascii=False, allow_nan=False)
        files = {output: text_bytes(f"{text}\n"), **files}
    write_all(files, may_replace=lambda _: force)
    return made
