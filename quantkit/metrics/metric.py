"""A metric, its result, and how a built-in metric declares itself.

Metric           takes outputs and labels batch by batch, and returns a MetricResult
BuiltInMetric    a metric that ships with quantkit: the `METRIC` of one file in this folder, found by `registry`
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from quantkit.metrics.task import NetworkFacts, Task
from quantkit.values import Array

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from quantkit.preprocess import Preprocess


SizeOf: TypeAlias = "Callable[[str], tuple[int, int]]"
"""Name of an image → its width and height in its upright orientation, before it was resized."""


@dataclass(frozen=True, slots=True)
class MetricResult:
    """The value of a metric over all samples.

    per_sample: float64 [N] whose mean is `value`; None for a value of the whole set. resample: the value for these
    samples (indices, with repetition); None if the mean of `per_sample` gives it, or if only `value` is known.
    samples: number of samples. replicate: the same for many samples at once: how often each sample was drawn [R, N] →
    [R, parts], `value` first and then its parts, such as those of classes. further: figures beside the value, by name.
    detail: the material of which they are made, for the comparison of models.
    """

    value: float
    per_sample: Array | None
    resample: Callable[[NDArray[np.intp]], float] | None
    samples: int = 0
    replicate: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = None
    further: Mapping[str, float] = field(default_factory=dict)
    detail: object = None


class Metric(Protocol):
    """One metric of one model. share: a share 0 … 1, so that differences are in percentage points."""

    name: str
    share: bool
    higher_is_better: bool

    def add(self, outputs: Mapping[str, Array], labels: Sequence[Any] | Array, names: Sequence[str]) -> None:
        """Add a batch: outputs [N, …] by name, N labels, N sample names. DataError, UsageError."""

    def result(self) -> MetricResult:
        """Return the value over all samples so far. DataError if there were none."""


@runtime_checkable
class MergeableMetric(Metric, Protocol):
    """A metric whose totals over parts of the samples, one after the other, are those over all of them."""

    def state(self) -> Mapping[str, Any]:
        """Return the totals so far as plain values, arrays, and records of them."""

    def extend(self, state: Mapping[str, Any]) -> None:
        """Add the totals of the samples that follow."""


MetricFactory = Callable[[], Metric]
"""Creates one metric for each model."""


@dataclass(frozen=True, slots=True)
class LabelRequest:
    """Samples that a metric needs labels for.

    data, kind: the data set and its kind (images, array, batches, stream). names: of all samples; None for a stream.
    path: the argument of --labels, or None. spec: how images are preprocessed, or None. root: the folder that names of
    images are relative to. network: what the network's metadata declare. classes, keypoints, declared: names of the
    labels' classes by index, the shape of their keypoints, and where they lie, as far as the data set declares them.
    size_of: returns the upright size of an image by its name.
    """

    data: Any
    kind: str
    names: Sequence[str] | None
    path: Path | None
    spec: Preprocess | None
    root: Path | None = None
    network: NetworkFacts = field(default_factory=NetworkFacts)
    classes: tuple[str, ...] = ()
    keypoints: tuple[int, int] | None = None
    declared: Path | None = None
    size_of: SizeOf | None = None


@dataclass(frozen=True, slots=True)
class MetricLabels:
    """Labels that a metric reads by itself. of: the labels of samples by their names. names: of the classes.

    files: those that the labels are in.
    """

    source: str
    of: Callable[[Sequence[str]], Sequence[Any] | Array]
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class BuiltInMetric:
    """A built-in metric: its names, how to create it, and what its labels are.

    examples: names to list in help texts and errors, with a remark ("" for none). pattern: regular expression for
    everything a user can write in front of `@OUTPUT`. create: match and output name (None: find it) → a factory;
    UsageError for wrong arguments. share: as in `Metric`. default: whether it is used if no metric is named.

    class_labels: whether labels are class indices. open_labels: how the metric reads labels of its own kind, named by
    `label_kind`; None for the labels of the data set or of --labels. title: match → the name for reports.

    task: the task whose metric this is if none is named. describe_head: shapes of outputs (with the batch axis, −1 for
    an unknown length) → a phrase such as `v8 head, 80 classes`; None if no output looks like one that it measures.
    """

    examples: Mapping[str, str]
    pattern: str
    create: Callable[[re.Match[str], str | None], MetricFactory]
    share: bool = False
    default: bool = False
    class_labels: bool = False
    open_labels: Callable[[LabelRequest], MetricLabels] | None = None
    label_kind: str = ""
    title: Callable[[re.Match[str]], str] = lambda match: match[0]
    task: Task | None = None
    describe_head: Callable[[Mapping[str, tuple[int, ...]], NetworkFacts], str | None] | None = None
    figures: tuple[str, ...] = ()
    """Names of all figures that results hold; shares if the metric is one."""
    words: Mapping[str, str] = field(default_factory=dict)
    """Other words that users write → the name that is suggested to them."""
