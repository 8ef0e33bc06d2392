"""The head of a network, found from outputs and metadata, or named by the user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from quantkit.errors import UsageError
from quantkit.metrics.heads import after_nms, pairs, yolo, yolo_raw
from quantkit.metrics.heads.facts import declared_facts
from quantkit.metrics.heads.head import Head, HeadQuestion, Layout, sizes
from quantkit.metrics.task import NetworkFacts, Task

LAYOUTS: Mapping[str, Layout] = {
    layout.name: layout for module in (yolo, yolo_raw, pairs, after_nms) for layout in module.LAYOUTS
}
TASKS = {Task.DETECT: "map", Task.SEGMENT: "mask-map", Task.POSE: "keypoint-map"}
"""The metric of each task that a head is for."""


def fitting_heads(question: HeadQuestion) -> tuple[Head, ...]:
    """Return the heads that the outputs may be, without a name."""
    asked = replace(question, named=False)
    return tuple(head for layout in LAYOUTS.values() if (head := layout.find(asked)) is not None)


def find_head(question: HeadQuestion) -> Head | None:
    """Return the head of a network; None if its outputs fit none, or several."""
    fitting = fitting_heads(replace(question, certain=True))
    return fitting[0] if len(fitting) == 1 else None


def require_head(question: HeadQuestion, layout: str | None, metric: str) -> Head:
    """Return the head of this layout, or the only one that fits. metric: name that the user gave. UsageError."""
    outputs = ", ".join(f"{output.name} {list(sizes(output))}" for output in question.outputs)
    if layout is not None:
        found = LAYOUTS[layout].find(replace(question, named=True))
        if found is None:
            raise UsageError(
                f"the outputs are not a {layout} head, {LAYOUTS[layout].summary}: {outputs}",
                remedy=f"name another: {layout_choices(metric)}; {metric}:{layout}@NAME picks an output",
            )
        return found
    if question.network.task is Task.OBB:
        raise UsageError(
            "the network finds rotated boxes, which no metric here measures",
            remedy="name a metric of your own: --metric module:callable",
        )
    fitting = fitting_heads(question)
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = [head.layout for head in fitting]
        raise UsageError(
            f"the outputs may be those of a {' or a '.join(names)} head: {outputs}",
            remedy="name it: " + " or ".join(f"--metric {metric}:{n} ({LAYOUTS[n].summary})" for n in names),
        )
    raise UsageError(
        f"the outputs are those of no known head: {outputs}",
        remedy=f"name one: {layout_choices(metric)}; or a metric of your own: --metric module:callable",
    )


def layout_choices(metric: str) -> str:
    """Return `--metric map:v8, :v5 …`."""
    first, *rest = LAYOUTS
    return f"--metric {metric}:{first}, {', '.join(f':{name}' for name in rest)}"


def describe_head(shapes: Mapping[str, tuple[int, ...]], network: NetworkFacts, task: Task) -> str | None:
    """Return for example `v8 head, 80 classes` for outputs of these shapes (−1: unknown), if they are of this task."""
    found = find_head(HeadQuestion(declared_facts(shapes), network))
    return found.summary if found is not None and found.task is task else None
