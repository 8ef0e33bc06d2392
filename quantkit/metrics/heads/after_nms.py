"""Networks that end in NMS, so that their outputs are the detections.

    layout        outputs
    nms           boxes [N, K, 4], scores [N, K], classes [N, K], and how many of them count [N] or [N, 1], if it is
                  there (EfficientNMS_TRT; RT-DETR's own export); or of a single image boxes [M, 4], scores [M],
                  classes [M]; or rows [K, 7] of image, x1, y1, x2, y2, class, score (YOLOv7 --end2end)
    torchvision   of a single image boxes [M, 4], labels [M], scores [M], and masks [M, 1, H, W] or keypoints [M, K, 3];
                  label 0 is the background, so that classes begin at 1
    selected      ONNX's NonMaxSuppression: indices [K, 3] of image, class and box, with boxes [N, A, 4] and scores
                  [N, C, A]; corners are y1, x1, y2, x2 as ONNX has it
    selected-xy   the same with corners x1, y1, x2, y2

Boxes are corners, in pixels of the input or fractions of it (see `in_pixels`).

Sources: TensorRT's EfficientNMS plugin; ONNX's NonMaxSuppression; torchvision's `GeneralizedRCNN`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial

import numpy as np

from quantkit.errors import DataError
from quantkit.metrics.heads.detections import Detections, corners, in_pixels, score_order
from quantkit.metrics.heads.head import (
    Canvas,
    Head,
    HeadQuestion,
    ImageOutputs,
    Layout,
    OutputFacts,
    only_output,
    refuse_other_rows,
    sizes,
)
from quantkit.metrics.task import Task
from quantkit.values import MOST_CLASSES, Array

CLASSES = re.compile(r"class|label|cls", re.IGNORECASE)
ROW = 7
"""Columns of a row of image, box, class and score."""


def find_lists(question: HeadQuestion, layout: str) -> Head | None:
    """Return a head whose outputs are lists of boxes, scores and classes: of each image, or of a single one."""
    boxes = [output for output in question.floats if sizes(output)[-1:] == (4,) and output.rank in (2, 3)]
    if len(boxes) != 1:
        return None
    rank = boxes[0].rank
    if (layout == "torchvision" and rank != 2) or (layout == "nms" and rank == 2 and not question.named):
        return None
    lists = [o for o in question.outputs if o.rank == rank - 1 and (rank == 2 or sizes(o)[-1] == sizes(boxes[0])[1])]
    classes, scores = split_lists(lists, rank)
    if classes is None or scores is None:
        return None
    outputs = [boxes[0].name, scores.name, classes.name]
    first, task = int(layout == "torchvision"), Task.DETECT
    if layout == "torchvision":
        task, more = find_more(question)
        outputs += more
        split, decode = single_image, partial(decode_lists, task)
    elif rank == 2:
        split, decode = single_image, partial(decode_lists, task)
    else:
        count = find_count(question, [*lists, *boxes])
        outputs += [count.name] if count else []
        split, decode = rows_that_count, partial(decode_lists, task)
    return Head(layout, task, tuple(outputs), None, decode, split, first, by_id=bool(first))


def split_lists(lists: list[OutputFacts], rank: int) -> tuple[OutputFacts | None, OutputFacts | None]:
    """Return the lists of classes and of scores, by their type, else by their name."""
    whole = [output for output in lists if output.integers and (rank == 3 or output.rank == 1)]
    floats = [output for output in lists if not output.integers]
    if not whole:
        whole = [output for output in floats if CLASSES.search(output.name)]
        floats = [output for output in floats if output not in whole]
    return (whole[0], floats[0]) if len(whole) == len(floats) == 1 else (None, None)


def find_count(question: HeadQuestion, known: list[OutputFacts]) -> OutputFacts | None:
    """Return the output that says how many boxes of each image count."""
    fitting = [o for o in question.outputs if o not in known and o.integers and (o.rank == 1 or sizes(o)[1:] == (1,))]
    return fitting[0] if len(fitting) == 1 else None


def find_more(question: HeadQuestion) -> tuple[Task, list[str]]:
    """Return the task of a torchvision head, and its output of masks or keypoints."""
    masks = only_output(question.floats, 4)
    if masks is not None and question.network.task in (None, Task.SEGMENT):
        return Task.SEGMENT, [masks.name]
    points = [output for output in question.floats if output.rank == 3 and sizes(output)[2] == 3]
    if len(points) == 1 and question.network.task in (None, Task.POSE):
        return Task.POSE, [points[0].name]
    return Task.DETECT, []


def single_image(outputs: ImageOutputs, samples: int) -> Iterable[ImageOutputs]:
    """Yield the outputs, which are those of one image. DataError for several."""
    if samples != 1:
        raise DataError(
            f"lists of boxes of {samples} images cannot be kept apart", remedy="evaluate with --batch-size 1"
        )
    yield outputs


def rows_that_count(outputs: ImageOutputs, samples: int) -> Iterable[ImageOutputs]:
    """Yield the outputs of each image without the rows that do not count."""
    refuse_other_rows(outputs, samples)
    boxes, scores, classes, *count = outputs
    for n in range(samples):
        most = int(np.ravel(count[0])[n]) if count else boxes.shape[1]
        most = max(0, min(most, boxes.shape[1]))
        yield boxes[n, :most], scores[n, :most], classes[n, :most]


def decode_lists(task: Task, outputs: ImageOutputs, canvas: Canvas) -> Detections:
    """Return the detections of one image."""
    boxes, scores, classes = outputs[0].astype(np.float64), outputs[1].astype(np.float64).ravel(), outputs[2].ravel()
    order = score_order(boxes, scores)
    numbers = np.rint(np.clip(classes[order].astype(np.float64), -1, MOST_CLASSES)).astype(np.intp)
    found = Detections(in_pixels(boxes, canvas)[order], scores[order], numbers)
    if task is Task.SEGMENT:
        levels = outputs[3].reshape(len(boxes), *outputs[3].shape[-2:])[order].astype(np.float32) - np.float32(0.5)
        return Detections(found.boxes, found.scores, found.classes, levels)
    if task is Task.POSE:
        return Detections(found.boxes, found.scores, found.classes, None, outputs[3][order].astype(np.float64))
    return found


def find_rows(question: HeadQuestion) -> Head | None:
    """Return a head of rows [K, 7], or one of lists."""
    first = question.outputs[0]
    if len(question.outputs) == 1 and sizes(first)[1:] == (ROW,) and (question.named or has_numbers(first.example)):
        name = first.name
        return Head("nms", Task.DETECT, (name,), None, partial(decode_lists, Task.DETECT), rows_by_image)
    return find_lists(question, "nms")


def has_numbers(rows: Array | None) -> bool:
    """Return True if rows [K, 7] have whole numbers where the image and the class are."""
    return rows is not None and len(rows) > 0 and np.array_equal(rows[:, [0, 5]], np.rint(rows[:, [0, 5]]))


def rows_by_image(outputs: ImageOutputs, samples: int) -> Iterable[ImageOutputs]:
    """Yield boxes, scores and classes of each image from rows of image, box, class and score."""
    rows = outputs[0]
    for n in range(samples):
        own = rows[np.rint(rows[:, 0]) == n]
        yield own[:, 1:5], own[:, 6], own[:, 5]


def find_selected(question: HeadQuestion, layout: str) -> Head | None:
    """Return a head of selected indices. Without its name it is the layout of ONNX."""
    indices = [o for o in question.outputs if o.integers and o.rank == 2 and sizes(o)[1] == 3]
    boxes = [o for o in question.floats if o.rank == 3 and sizes(o)[2] == 4]
    if len(indices) != 1 or len(boxes) != 1 or (layout != "selected" and not question.named):
        return None
    anchors = boxes[0].shape[1]
    scores = [o for o in question.floats if o.rank == 3 and o is not boxes[0] and o.shape[2] in (None, anchors)]
    if len(scores) != 1:
        return None
    names = (boxes[0].name, scores[0].name, indices[0].name)
    order = "centre" if indices[0].centred else "yx" if layout == "selected" else "xy"
    return Head(layout, Task.DETECT, names, scores[0].shape[1], partial(decode_selected, order), rows_selected)


def rows_selected(outputs: ImageOutputs, samples: int) -> Iterable[ImageOutputs]:
    """Yield boxes [A, 4], scores [C, A], and class and box [K, 2] of what was selected, of each image."""
    boxes, scores, indices = outputs
    refuse_other_rows((boxes, scores), samples)
    for n in range(samples):
        yield boxes[n], scores[n], indices[indices[:, 0] == n][:, 1:]


def decode_selected(order: str, outputs: ImageOutputs, canvas: Canvas) -> Detections:
    """Return the detections of one image. order: of a box's numbers."""
    boxes, scores, chosen = outputs[0].astype(np.float64), outputs[1].astype(np.float64), outputs[2]
    boxes = corners(boxes) if order == "centre" else boxes[:, [1, 0, 3, 2]] if order == "yx" else boxes
    boxes = in_pixels(boxes, canvas)[chosen[:, 1]]
    boxes = np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], axis=1)
    found: Array = scores[chosen[:, 0], chosen[:, 1]]
    best = score_order(boxes, found)
    return Detections(boxes[best], found[best], chosen[best, 0].astype(np.intp))


LAYOUTS = (
    Layout("nms", "boxes, scores and classes, as of EfficientNMS", find_rows),
    Layout("torchvision", "boxes, labels from 1 and scores of one image", partial(find_lists, layout="torchvision")),
    Layout("selected", "indices of NonMaxSuppression, boxes y1, x1, y2, x2", partial(find_selected, layout="selected")),
    Layout("selected-xy", "the same, boxes x1, y1, x2, y2", partial(find_selected, layout="selected-xy")),
)
