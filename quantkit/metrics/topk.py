"""Top-k accuracy: whether the label is among the k highest class scores. Ties go to the lowest class, as in argmax."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantkit.errors import DataError, UsageError
from quantkit.metrics.class_scores import class_scores
from quantkit.metrics.metric import BuiltInMetric, MetricFactory, MetricResult
from quantkit.values import Array


class TopK:
    """Share of samples whose label is among the `k` highest class scores; `output` names the output with the scores."""

    share = True
    higher_is_better = True

    def __init__(self, k: int, output: str | None = None) -> None:
        self.name = f"top{k}"
        self._k, self._output = k, output
        self._right: list[NDArray[np.bool_]] = []

    def add(self, outputs: Mapping[str, Array], labels: Sequence[Any] | Array, names: Sequence[str]) -> None:
        """Add a batch; labels are class indices. DataError names the sample, UsageError the outputs."""
        name = self._output or find_score_output(outputs, self.name)
        scores = class_scores(outputs[name])
        if scores is None:
            raise UsageError(
                f"{self.name}: output {name} {list(outputs[name].shape)} holds no class scores [N, C]",
                remedy=f"name one that does ({self.name}@NAME), or use a metric of your own: --metric module:callable",
            )
        if scores.shape[1] <= self._k:
            raise UsageError(
                f"{self.name} is always right with {scores.shape[1]} classes (output {name})",
                remedy="use top1" if self._k > 1 else "use a metric of your own: --metric module:callable",
            )
        self._right.append(
            is_within_top(scores, as_class_numbers(labels, names, name, scores.shape[1]), self._k, names, name)
        )

    def result(self) -> MetricResult:
        """Return the share, and 0 or 1 for each sample. DataError if there were no samples."""
        if not sum(map(len, self._right)):
            raise DataError(f"{self.name}: no sample has a label", remedy="give data with labels")
        per_sample = np.concatenate(self._right).astype(np.float64)
        return MetricResult(float(per_sample.mean()), per_sample, None, per_sample.size)

    def state(self) -> Mapping[str, Any]:
        """Return whether each sample is right."""
        return {"right": np.concatenate([np.zeros(0, np.bool_), *self._right])}

    def extend(self, state: Mapping[str, Any]) -> None:
        """Add the samples that follow."""
        self._right.append(state["right"])


def find_score_output(outputs: Mapping[str, Array], metric: str) -> str:
    """Return the name of the only output, or of the only one that can hold class scores. UsageError."""
    if len(outputs) == 1:
        return next(iter(outputs))
    fitting = [name for name, output in outputs.items() if class_scores(output) is not None]
    if len(fitting) == 1:
        return fitting[0]
    shapes = ", ".join(f"{name} {list(output.shape)}" for name, output in outputs.items())
    which = "none of them holds" if not fitting else f"{' and '.join(fitting)} could be"
    raise UsageError(
        f"{metric}: the network has {len(outputs)} outputs, {which} class scores [N, C]: {shapes}",
        remedy=f"name the output: {metric}@{(fitting or list(outputs))[0]}",
    )


def as_class_numbers(
    labels: Sequence[Any] | Array, names: Sequence[str], output: str, classes: int
) -> NDArray[np.intp]:
    """Return labels as class indices [N], all in 0 … classes−1. DataError names the first sample that is not."""
    found = np.asarray(labels)
    if found.shape == (len(names), 1):
        found = found[:, 0]
    if found.shape != (len(names),) or found.dtype.kind not in "iu":
        first = names[0] if names else "the first sample"
        raise DataError(
            f"labels {found.dtype} {list(found.shape)} are not {len(names)} class indices (from {first})",
            remedy="give one integer for each sample; class names need a class-name map",
        )
    if (wrong := np.flatnonzero((found < 0) | (found >= classes))).size:
        at = wrong[0]
        raise DataError(
            f"{names[at]}: the label is {found[at]}, but output {output} has {classes} classes (0 … {classes - 1})",
            remedy="map the labels to the network's classes with a class-name map",
        )
    return found.astype(np.intp)


def is_within_top(
    scores: Array, labels: NDArray[np.intp], k: int, names: Sequence[str], output: str
) -> NDArray[np.bool_]:
    """Return True for samples with fewer than `k` classes above the label, ties going to the lower index."""
    if len(scores) != len(labels):
        raise DataError(
            f"output {output} has {len(scores)} rows for {len(labels)} samples (from {names[0]})",
            remedy="use a metric of your own for a model whose rows are not its samples",
        )
    if scores.dtype.kind == "f" and (broken := np.flatnonzero(np.isnan(scores).any(1))).size:
        raise DataError(
            f"{names[broken[0]]}: output {output} holds NaN", remedy="find the layer that produces it: quantkit layers"
        )
    own = scores[np.arange(len(labels)), labels][:, None]
    before = (scores > own) | ((scores == own) & (np.arange(scores.shape[1]) < labels[:, None]))
    return np.asarray(before.sum(axis=1) < k)


def create_top_k(match: re.Match[str], output: str | None) -> MetricFactory:
    """Return a factory for `top1`, `top5` …"""
    k = int(match[1])
    return lambda: TopK(k, output)


METRIC = BuiltInMetric(
    examples={"top1": "", "top5": ""},
    pattern="top([1-9][0-9]{0,8})",
    create=create_top_k,
    share=True,
    default=True,
    class_labels=True,
    title=lambda match: f"top-{match[1]}",
    words={"accuracy": "top1", "acc": "top1", "top": "top1"},
)
