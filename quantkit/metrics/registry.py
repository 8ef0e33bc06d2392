"""Metrics as a stream sees them: outputs and labels come in batch by batch, a figure and its samples come out.

    metric_named("top1", outputs)             share of samples whose label has the highest score
    metric_named("top5@logits", outputs)      of the output `logits`
    metric_named("yolo", outputs)             COCO's mAP of a detector (see `detection`); yolo:v8, yolo:v5, yolo:end2end
    metric_named("module:callable", outputs)  a metric of the user's own (see `plugged`)

A figure that is a mean over samples keeps the samples' scores, so that two models are compared pair by pair. A figure
of the whole set (mIoU, mAP) can say what it would be for other samples of the same set (`resample`), or nothing more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from quantkit.errors import UsageError
from quantkit.metrics.metric import Metric


def resolve_metric(text: str, outputs: Sequence[str]) -> Callable[[], Metric]:
    """A maker of metrics, one for each model, from what a user wrote. `outputs`: names of the network's outputs.

    UsageError where there is no such metric or no such output.
    """
    from quantkit.metrics.topk import TopK
    from quantkit.metrics.user_metric import load_user_metric

    word, at, output = text.partition("@")
    if at and output not in outputs:
        raise UsageError(
            f"--metric {text}: the network has no output {output!r}", remedy=f"one of {', '.join(outputs)}"
        )
    chosen = output or None
    if top := re.fullmatch(r"top([1-9]\d*)", word):
        k = int(top[1])
        return lambda: TopK(k, chosen)
    if head := re.fullmatch(r"yolo(?::(\w+))?", word):
        return detection_of(head[1], chosen)
    if re.fullmatch(r"\w[\w.]*:\w+", word):
        return load_user_metric(word, chosen)
    raise UsageError(
        f"unknown metric {text!r}",
        remedy="top1, top5, yolo, or module:callable for a metric of your own; @NAME picks an output",
    )


def detection_of(head: str | None, output: str | None) -> Callable[[], Metric]:
    """A maker of mAP metrics for a head of the YOLO family. UsageError where there is none of that name."""
    from quantkit.metrics.coco_map import CocoMap
    from quantkit.metrics.yolo_heads import HeadFamily

    known = {family.value: family for family in HeadFamily}
    if head is not None and head not in known:
        raise UsageError(f"--metric yolo:{head}: unknown head {head!r}", remedy=f"one of {', '.join(known)}")
    return lambda: CocoMap(None if head is None else known[head], output)
