"""The labels and the metric of the last step, looked for before the first one: what lacks is an error at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quantkit.data import Feed
from quantkit.errors import DataError
from quantkit.evaluation.options import EvaluationRequest, label_request
from quantkit.evaluation.task_metric import choose_task_metric, task_metric_name
from quantkit.graph import Model
from quantkit.metrics.registry import own_label_opener, resolve_metric
from quantkit.preprocess import Preprocess
from quantkit.regular_file import file_fault, regular_file_digest


@dataclass(frozen=True, slots=True)
class ExpectedLabels:
    """Labels that a metric reads by itself. identity: what determines them; None if no metric does."""

    notes: tuple[str, ...] = ()
    identity: Mapping[str, Any] | None = None
    files: tuple[Path, ...] = ()

    def refuse_changed(self) -> None:
        """Raise DataError where a file of labels is no longer what it was."""
        if self.identity is not None and file_digests(self.files) != self.identity["files"]:
            raise DataError("labels changed during the run", remedy="start again when nothing writes to them any more")


def expect_labels(model: Model, feed: Feed, request: EvaluationRequest, spec: Preprocess | None) -> ExpectedLabels:
    """Return the labels that `evaluate` will read, as far as the network's file shows its task.

    Raises the errors that it would raise: an unknown metric, a library or labels that are missing or damaged.
    """
    for text in request.metrics:
        resolve_metric(text, model.outputs)
    asked, notes = label_request(model, feed, request, spec), tuple[str, ...]()
    if not request.metrics and (chosen := choose_task_metric(asked, declared_shapes(model))):
        notes = chosen.notes
        if chosen.name is not None or request.labels is not None:
            request = replace(request, metrics=(chosen.name or task_metric_name(chosen.task),))
    for text in request.metrics:
        resolve_metric(text, model.outputs)()
    opener = own_label_opener(request.metrics)
    if opener is None:
        return ExpectedLabels(notes)
    labels = opener(asked)
    identity = {
        "files": file_digests(labels.files),
        "classes": list(asked.classes),
        "keypoints": None if asked.keypoints is None else list(asked.keypoints),
    }
    return ExpectedLabels(notes, identity, labels.files)


def declared_shapes(model: Model) -> dict[str, tuple[int, ...]]:
    """Return the shapes of outputs as the file declares them; −1 for a length that it does not fix."""
    return {
        value.name: tuple(
            d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else -1 for d in value.type.tensor_type.shape.dim
        )
        for value in model.proto.graph.output
    }


def file_digests(files: Sequence[Path]) -> list[list[str]]:
    """Return path and sha256 of files. DataError."""
    try:
        return [[str(path), regular_file_digest(path)] for path in files]
    except OSError as error:
        raise DataError(f"labels: {error.filename or ''}: {file_fault(error)}", remedy="check the path") from None
