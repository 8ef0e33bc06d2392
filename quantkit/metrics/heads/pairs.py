"""Heads with class scores [N, A, C] and boxes [N, A, 4]: transformers of the DETR family, and SSD and RetinaNet.

    layout       scores                                     boxes                                          NMS
    detr         softmax, the last class is "no object"     centre and size, fractions of the input        none
    rtdetr       sigmoid                                    centre and size, fractions of the input        none
    ssd          softmax, class 0 is the background         corners, decoded in the graph                  IoU 0.5
    retinanet    sigmoid                                    corners, decoded in the graph                  IoU 0.5

`rtdetr` is also [N, Q, 4 + C], boxes and scores in one output, as Ultralytics exports RT-DETR. Boxes of `ssd` and
`retinanet` are pixels of the input, or fractions of it (see `in_pixels`). Scores are logits where the graph does not
end in the function.

Without its name a head is recognised by the function that the scores end in, and by its boxes: transformers have up to
a thousand, and a centre and a size are not in order as corners are. Where the graph ends in logits, the number of
classes that metadata declare decides.

Sources: Carion et al., ECCV 2020 (arXiv 2005.12872) and its `PostProcess`; RT-DETR (arXiv 2304.08069) and its
`RTDETRPostProcessor`; torchvision's `SSD` and `RetinaNet`.
"""

from __future__ import annotations

import re
from functools import partial

import numpy as np

from quantkit.metrics.heads.detections import Detections, corners, in_pixels, score_order, sigmoid, softmax, suppress
from quantkit.metrics.heads.head import (
    Canvas,
    Ending,
    Head,
    HeadQuestion,
    ImageOutputs,
    Layout,
    OutputFacts,
    may_equal,
    only_output,
    sizes,
)
from quantkit.metrics.task import Task
from quantkit.values import Array

MOST_QUERIES = 1000
"""Rows of a transformer's outputs."""
OVERLAP = 0.5
BOXES = re.compile(r"box|bbox|loc|dets|reg", re.IGNORECASE)
SCORES = re.compile(r"logit|score|label|class|cls|conf|prob", re.IGNORECASE)
ENDINGS = {"detr": Ending.SOFTMAX, "rtdetr": Ending.SIGMOID, "ssd": Ending.SOFTMAX, "retinanet": Ending.SIGMOID}


def find_pair(question: HeadQuestion) -> tuple[OutputFacts, OutputFacts] | None:
    """Return the outputs with scores and boxes; None if they are not two of equal rows."""
    rows = [output for output in question.floats if output.rank == 3]
    boxes = [output for output in rows if sizes(output)[2] == 4]
    if len(boxes) > 1:
        boxes = [output for output in boxes if BOXES.search(output.name)]
    if len(boxes) != 1:
        return None
    others = [o for o in rows if o is not boxes[0] and may_equal(o.shape[1], boxes[0].shape[1])]
    if question.chosen:
        others = [output for output in others if output.name == question.chosen]
    elif len(others) > 1:
        others = [output for output in others if SCORES.search(output.name)]
    return (others[0], boxes[0]) if len(others) == 1 else None


def find_paired(layout: str, question: HeadQuestion) -> Head | None:
    """Return a head of two outputs."""
    pair = find_pair(question)
    if pair is None or (question.network.task not in (None, Task.DETECT)):
        return None
    scores, boxes = pair
    columns = sizes(scores)[2]
    background = ENDINGS[layout] is Ending.SOFTMAX
    classes = None if columns == -1 else columns - background
    if (classes is not None and classes < 1) or (not question.named and not is_likely(layout, question, scores, boxes)):
        return None
    logits = scores.ending in (Ending.OTHER, Ending.UNKNOWN)
    first = int(layout == "ssd")
    return Head(
        layout, Task.DETECT, (scores.name, boxes.name), classes, partial(decode_pair, layout, logits), first=first
    )


def is_likely(layout: str, question: HeadQuestion, scores: OutputFacts, boxes: OutputFacts) -> bool:
    """Return True if an unnamed head of two outputs may have this layout."""
    _, rows, columns = sizes(scores)
    if rows == -1 or columns == -1:
        return False
    anchors = layout in ("ssd", "retinanet")
    if rows > MOST_QUERIES and not anchors:
        return False
    if rows <= MOST_QUERIES and boxes.ordered is not None and boxes.ordered != anchors:
        return False
    if scores.ending in (Ending.SIGMOID, Ending.SOFTMAX):
        return scores.ending is ENDINGS[layout]
    declared = question.classes
    return declared is None or columns == declared + (ENDINGS[layout] is Ending.SOFTMAX)


def decode_pair(layout: str, logits: bool, outputs: ImageOutputs, canvas: Canvas) -> Detections:
    """Return the detections of one image, classes from 0. logits: the scores lack their function."""
    scores, boxes = (output.astype(np.float64) for output in outputs)
    if ENDINGS[layout] is Ending.SOFTMAX:
        scores = softmax(scores) if logits else scores
    elif logits:
        scores = sigmoid(scores)
    if layout == "detr":
        return decode_queries(boxes, scores[:, :-1], canvas, best=True)
    if layout == "rtdetr":
        return decode_queries(boxes, scores, canvas, best=False)
    if layout == "ssd":
        scores = scores[:, 1:]
    found, _ = suppress(in_pixels(boxes, canvas), scores, OVERLAP)
    return Detections(found.boxes, found.scores, found.classes + (layout == "ssd"))


def decode_queries(boxes: Array, scores: Array, canvas: Canvas, *, best: bool) -> Detections:
    """Return the detections of queries. best: only the best class of each counts, else all of them."""
    corner = corners(boxes) * np.tile(canvas, 2)
    if not best:
        return suppress(corner, scores, None)[0]
    classes = scores.argmax(axis=1)
    highest = scores.max(axis=1)
    order = score_order(corner, highest)
    return Detections(corner[order], highest[order], classes[order])


def find_joined(question: HeadQuestion) -> Head | None:
    """Return an rtdetr head, of two outputs or of one: unnamed, one needs the number of classes from metadata."""
    output = only_output(question.floats, 3)
    if output is None or len([o for o in question.floats if o.rank == 3]) != 1:
        return find_paired("rtdetr", question)
    _, rows, columns = sizes(output)
    classes = columns - 4
    fits = question.named or (question.classes == classes and 0 < rows <= MOST_QUERIES and rows > columns)
    if not fits or classes < 1 or question.network.task not in (None, Task.DETECT):
        return None
    logits = output.ending is Ending.OTHER
    return Head("rtdetr", Task.DETECT, (output.name,), classes, partial(decode_joined, logits))


def decode_joined(logits: bool, outputs: ImageOutputs, canvas: Canvas) -> Detections:
    """Return the detections of one image from rows of boxes and scores."""
    rows = outputs[0].astype(np.float64)
    scores = sigmoid(rows[:, 4:]) if logits else rows[:, 4:]
    return decode_queries(rows[:, :4], scores, canvas, best=False)


LAYOUTS = (
    Layout("detr", 'logits and boxes; softmax, "no object" last', partial(find_paired, "detr")),
    Layout("rtdetr", "logits and boxes; sigmoid", find_joined),
    Layout("ssd", "scores and boxes; softmax, background first", partial(find_paired, "ssd")),
    Layout("retinanet", "scores and boxes; sigmoid", partial(find_paired, "retinanet")),
)
