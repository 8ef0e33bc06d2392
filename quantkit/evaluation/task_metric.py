"""The metric that is taken by itself: that of the network's task, if labels of its kind lie where labels lie.

    task      declared in the network's metadata, else recognised by the shapes of its outputs
    labels    those that were given or that the data set declares, else beside the images (`metrics.labels.places`)

Classification is left to the default metric. Without labels nothing is measured that was not asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quantkit.errors import UsageError
from quantkit.metrics.metric import BuiltInMetric, LabelRequest
from quantkit.metrics.registry import USER_METRIC, built_in_metrics
from quantkit.metrics.scene_labels import ask_for, seek_labels
from quantkit.metrics.task import NetworkFacts, Task

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class TaskMetric:
    """A metric that follows from the task, and what was found. name: None if there are no labels of its kind."""

    task: Task
    name: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Recognised:
    """A task and its metric. head: the head in words; empty if its form is not known."""

    task: Task
    metric: BuiltInMetric
    head: str

    @property
    def name(self) -> str:
        """The metric's name."""
        return next(iter(self.metric.examples))


def choose_task_metric(request: LabelRequest, shapes: Shapes) -> TaskMetric | None:
    """Return the metric of the network's task; None if the task is unknown, or classification.

    shapes: of outputs, with the batch axis; −1 for a length that is not known.
    """
    if request.kind != "images" or request.names is None or request.spec is None:
        return None
    task = request.network.task
    if task in (Task.CLASSIFY, Task.OBB):
        return None if task is Task.CLASSIFY else TaskMetric(task, None, (no_metric(task),))
    fitting = recognise(request.network, shapes)
    if not fitting:
        return None if task is None else TaskMetric(task, None, (no_metric(task),))
    for found in fitting:
        if place := seek_labels(request, found.task):
            return TaskMetric(found.task, found.name, (describe(found, place.text, request.network),))
    first = fitting[0]
    return TaskMetric(
        first.task,
        None,
        (f"{describe_task(first, request.network)}, and no {first.task.labels} lie beside the images: "
         f"{ask_for(first.task)} measures {first.name}",),
    )  # fmt: skip


def recognise(network: NetworkFacts, shapes: Shapes) -> Sequence[Recognised]:
    """Return the tasks that a network may have, each with its metric: the declared one, or those of its outputs."""
    found = []
    for metric in built_in_metrics():
        if metric.task is None or network.task not in (None, metric.task):
            continue
        head = metric.describe_head(shapes, network) if metric.describe_head else None
        if head is not None or network.task is not None:
            found.append(Recognised(metric.task, metric, head or ""))
    return found


def task_metric_name(task: Task) -> str:
    """Return the name of a task's metric. UsageError if none measures it."""
    for metric in built_in_metrics():
        if metric.task is task:
            return next(iter(metric.examples))
    raise UsageError(f"labels cannot be measured with: {no_metric(task)}", remedy="omit --labels")


def describe(found: Recognised, labels: str, network: NetworkFacts) -> str:
    """Return what was found: `boxes: 128 text files in labels/val; metric map (v8 head, 80 classes)`."""
    return f"{found.task.labels}: {labels}; metric {found.name}, because {describe_task(found, network)}"


def describe_task(found: Recognised, network: NetworkFacts) -> str:
    """Return the task of a network and how it is known."""
    if network.task is None:
        return f"the outputs are those of a {found.head}"
    return f"the metadata say {network.task.value}{f' ({found.head})' if found.head else ''}"


def no_metric(task: Task) -> str:
    """Return that nothing measures a task."""
    return (
        f"the metadata say {task.value}, which no built-in metric measures: output errors only (--metric {USER_METRIC} "
        "measures with labels)"
    )
