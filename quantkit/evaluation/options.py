"""Options of an evaluation, and the metrics and labels that follow once the outputs of a network are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantkit.backends.session import check_provider
from quantkit.data import DataOptions, Feed, Portion
from quantkit.data.classes import read_classes
from quantkit.data.labels import LabelOptions, Labels, LabelTask, open_labels
from quantkit.data.opening import DataFields
from quantkit.data.preprocess_choice import AnyPreprocess
from quantkit.errors import DataError, UsageError
from quantkit.evaluation.accumulate import (
    Outputs,
    Scoring,
    choose_score_output,
    score_outputs,
    start_scoring,
    start_watching,
)
from quantkit.evaluation.outputs.score_evidence import Evidence
from quantkit.evaluation.scenes.named_head import names_heads
from quantkit.evaluation.scenes.watch import ImageSource
from quantkit.evaluation.subjects import Subject
from quantkit.evaluation.task_metric import choose_task_metric, task_metric_name
from quantkit.graph import Model
from quantkit.graph.selected_outputs import selected_outputs
from quantkit.metrics.metric import LabelRequest, Metric, MetricFactory
from quantkit.metrics.registry import (
    USER_METRIC,
    default_metric,
    own_label_opener,
    resolve_metric,
    wants_class_labels,
)
from quantkit.metrics.task import NetworkFacts, network_facts
from quantkit.preprocess import Preprocess
from quantkit.totals.options import TotalsFields, TotalsOptions
from quantkit.values import check_number

MOST_DROP = 1e12
"""The largest budget, in the unit of a metric."""

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, slots=True)
class EvaluateOptions(TotalsOptions):
    """Options of an evaluation. Defaults suit most networks.

    classes: file of class names, in the order of the outputs. without_labels: agreement and output errors only.
    max_drop: the budget, in percentage points if the metric is a share. changed: number of changed samples to keep.
    names: names of the models, instead of their files' names. provider: onnxruntime's. device, allow_code: for engines.
    min_coverage: share of the network's float tensors that a table must cover.
    """

    data: DataOptions = field(default_factory=DataOptions)
    """All samples, unless a limit is given."""
    classes: str | Path | None = None
    without_labels: bool = False
    max_drop: float | None = None
    changed: int = 20
    names: tuple[str, ...] = ()
    provider: str = "cpu"
    device: int = 0
    allow_code: bool = False
    min_coverage: float = 0.9

    def __post_init__(self) -> None:
        TotalsOptions.__post_init__(self)
        check_number("max_drop", self.max_drop, 0.0, MOST_DROP, whole=False)
        check_number("changed", self.changed, 0)
        check_number("device", self.device, 0)
        check_number("min_coverage", self.min_coverage, 0.0, 1.0, whole=False)
        if self.without_labels and self.max_drop is not None:
            raise UsageError("no drop can be measured without labels", remedy="omit --max-drop or --no-labels")
        check_provider(self.provider)


class EvaluateFields(DataFields, TotalsFields, total=False):
    """The keywords of `evaluate` that are fields of `EvaluateOptions`."""

    metric: str | Sequence[str] | None
    """Another name of `metrics`."""
    classes: str | Path | None
    without_labels: bool
    max_drop: float | None
    changed: int
    names: str | Sequence[str]
    provider: str
    device: int
    allow_code: bool
    min_coverage: float


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """Data, labels and metrics of an evaluation. data, labels, preprocess, metrics, options: as `evaluate` takes them.

    budget: like max_drop of the options, but ignored without labels. must_decide: raise UsageError if several outputs
    could be measured. skipped_before: samples of other parts of the data that were left out.
    """

    data: Any
    labels: Path | None = None
    preprocess: AnyPreprocess = None
    metrics: tuple[str, ...] = ()
    options: EvaluateOptions = field(default_factory=EvaluateOptions)
    budget: float | None = None
    must_decide: bool = False
    skipped_before: tuple[str, ...] = ()

    @property
    def needs_labels(self) -> bool:
        """Return True if the evaluation makes no sense without labels."""
        return bool(self.metrics or self.labels or self.options.max_drop is not None)


def resolve_metrics(
    subjects: Sequence[Subject],
    first: Outputs,
    portion: Portion,
    feed: Feed,
    request: EvaluationRequest,
    spec: Preprocess | None,
) -> Scoring:
    """Resolve metrics and labels from the first outputs of the reference. spec: of images. DataError, UsageError."""
    for text in request.metrics:
        resolve_metric(text, list(first))  # before labels are looked for
    graph = None if (model := subjects[0].model) is None else model.proto.graph
    fitting = score_outputs(graph, first, portion.samples)
    asked = label_request(next((s.model for s in subjects if s.model is not None), None), feed, request, spec)
    chosen = None
    if not request.metrics and not request.options.without_labels and not (fitting and asked.network.task is None):
        chosen = choose_task_metric(asked, {name: output.shape for name, output in first.items()})
    if chosen is not None and (chosen.name is not None or request.labels is not None):
        request = replace(request, metrics=(chosen.name or task_metric_name(chosen.task),))
    names = tuple(dict.fromkeys(request.metrics or (default_metric(),)))
    output = next((text.partition("@")[2] for text in names if "@" in text), "") or None
    scores = choose_score_output(fitting, output)
    labels = find_labels(scores, tuple(fitting), first, portion, feed, request, asked)
    ignored = scores is None and labels is None and chosen is None and not request.options.without_labels
    undecided = tuple(fitting) if ignored and len(fitting) > 1 else ()
    factories: list[MetricFactory] = []
    if labels is not None:
        factories = name_apart(names, [resolve_metric(text, list(first)) for text in names])
    else:
        fitting = {name: found for name, found in fitting.items() if found is not Evidence.UNLIKELY}
        scores = choose_score_output(fitting, None)
    assumed = labels is None and scores is not None and fitting[scores] is Evidence.POSSIBLE
    scoring = start_scoring(subjects, first, scores, factories, labels, assumed)
    source = ImageSource(feed.image_size if feed.kind == "images" else None, spec)
    start_watching(scoring, first, source, request.metrics if request.options.without_labels else ())
    scoring.notes += (*(chosen.notes if chosen else ()), *selection_notes(graph, first))
    scoring.labels_ignored, scoring.undecided = ignored, undecided
    if undecided and len(fitting) > 1 and request.must_decide:
        raise UsageError(
            f"{list_score_outputs(scoring.undecided)}, and none of them is named",
            remedy=output_remedy(scoring.undecided),
        )
    return scoring


def selection_notes(graph: onnx.GraphProto | None, outputs: Outputs) -> tuple[str, ...]:
    """Return a note on outputs that a TopK or an NMS selects and sorts."""
    found = [] if graph is None else selected_outputs(graph, outputs)
    if not found:
        return ()
    names = ", ".join(map(repr, found))
    return (f"compared place by place: {names}, selected by size, so that values in another order count as errors",)


def name_apart(texts: Sequence[str], factories: Sequence[MetricFactory]) -> list[MetricFactory]:
    """Return factories of metrics with unique names: metrics that share a name get the user's text as their name."""
    names = [factory().name for factory in factories]

    def renamed(factory: MetricFactory, text: str) -> MetricFactory:
        def create() -> Metric:
            metric = factory()
            metric.name = text
            return metric

        return create

    return [
        factory if names.count(name) == 1 else renamed(factory, text)
        for factory, name, text in zip(factories, names, texts, strict=True)
    ]


def no_scores_error(outputs: Outputs, fitting: Sequence[str]) -> UsageError:
    """Return the error that the default metric fits no output, or several."""
    metric = default_metric()
    if fitting:
        return UsageError(f"{list_score_outputs(fitting)}, and {metric} needs one", remedy=output_remedy(fitting))
    return UsageError(
        f"no output holds class scores [N, C] for {metric}; the outputs are {', '.join(map(repr, outputs))}",
        remedy=f"name a metric: --metric {metric}@OUTPUT, or --metric {USER_METRIC}",
    )


def list_score_outputs(fitting: Sequence[str]) -> str:
    """Return `outputs 'a' and 'b' can hold class scores`."""
    return f"outputs {', '.join(map(repr, fitting[:-1]))} and {fitting[-1]!r} can hold class scores"


def output_remedy(fitting: Sequence[str]) -> str:
    """Return the remedy that names one of several outputs."""
    return f"name the output to measure, for example --metric {default_metric()}@{fitting[0]}"


def find_labels(
    scores: str | None,
    fitting: Sequence[str],
    first: Outputs,
    portion: Portion,
    feed: Feed,
    request: EvaluationRequest,
    asked: LabelRequest,
) -> Labels | None:
    """Return the labels; None if there are none and none are needed. DataError, UsageError.

    fitting: outputs that can hold class scores. asked: what a metric needs to read labels of its own kind.
    """
    options = request.options
    if options.without_labels:
        if request.labels or not names_heads(request.metrics):
            raise UsageError(
                "--no-labels excludes --metric and --labels",
                remedy="omit --no-labels, or the others; only the head of a detector may be named (--metric map:v8)",
            )
        return None
    if scores is None and not request.metrics:
        if request.needs_labels:
            raise no_scores_error(first, fitting)
        return None
    opener = own_label_opener(request.metrics)
    if opener is not None:
        own = opener(asked)
        return Labels(own.source, lambda samples: own.of(samples.names), own.names, own.notes)
    labels = open_data_labels(None if scores is None else first[scores].shape[1], portion, feed, request)
    if labels is None and request.needs_labels:
        declared = feed.declared(None)
        why = f": {declared.source}: {declared.missing}" if declared is not None and declared.missing else ""
        raise DataError(
            f"there are no labels to measure with{why}",
            remedy="sort images into class folders, or give --labels FILE (one `file,label` per line)",
        )
    return labels


def label_request(model: Model | None, feed: Feed, request: EvaluationRequest, spec: Preprocess | None) -> LabelRequest:
    """Return what metrics need to read labels: the samples, and what network and data set declare. DataError."""
    network = NetworkFacts() if model is None else network_facts(model.metadata)
    if request.options.classes is not None:
        network = replace(network, names=read_classes(Path(request.options.classes)).shown())
    asked = LabelRequest(
        request.data, feed.kind, feed.names, request.labels, spec, network=network, size_of=feed.image_size
    )
    if feed.images is None:
        return asked
    images = feed.images
    return replace(
        asked,
        root=images.folder.root,
        classes=images.classes,
        keypoints=images.keypoints,
        declared=images.labels,
    )


def open_data_labels(classes: int | None, portion: Portion, feed: Feed, request: EvaluationRequest) -> Labels | None:
    """Open the labels of the data set or of --labels. classes: of the network, if it has class scores. DataError."""
    known = None if request.options.classes is None else read_classes(Path(request.options.classes))
    without = feed.kind in ("batches", "stream") and portion.labels is None and request.labels is None
    if without and not request.needs_labels:
        return None
    task = LabelTask(classes, not request.metrics or wants_class_labels(request.metrics))
    return open_labels(request.data, feed, LabelOptions(request.labels, known), task)
