"""Decoded heads of the YOLO family: one output with a row or a column for each box.

    layout     output                   a row is
    v8         [N, 4 + C (+ E), A]      x, y, width, height (centre, input pixels), C class scores    (v8, v9, 11, 12)
    v5         [N, A, 5 + C (+ E)]      x, y, width, height, objectness, C class scores; score = their product (v5 … v7)
    end2end    [N, M, 6 (+ E)]          x1, y1, x2, y2, score, class: without NMS                     (v10, 26, --nms)
    yolox      [N, A, 5 + C]            as v5, but x, y in cells from their cell, and log(width, height) in cells

E are mask coefficients (as many as the second output [N, E, h, w] has prototypes) or keypoints (K times x, y and, if
there are three, a visibility). A is the number of anchors (8,400 or 25,200 at 640 × 640), M at most a few hundred.
[N, A, 6] is v5 with one class, or end2end if its last column holds class numbers, or if there are 300 rows, the default
of exports, and no example. Settings are those of Ultralytics' validation: every class of a box counts, scores from
0.001, NMS per class at IoU 0.7 (v5: 0.6; YOLOX: 0.65), at most 300 boxes per image.

Sources: Ultralytics' `non_max_suppression` and `val` (v8), YOLOv5's `val.py`, YOLOX's `decode_outputs`; written from
their behaviour, not copied.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from quantkit.metrics.heads.detections import Detections, corners, score_order, suppress
from quantkit.metrics.heads.head import (
    Canvas,
    Head,
    HeadQuestion,
    ImageOutputs,
    Layout,
    OutputFacts,
    are_rows_of_boxes,
    only_output,
    sizes,
)
from quantkit.metrics.task import Task
from quantkit.values import MOST_CLASSES, Array

OVERLAP = {"v8": 0.7, "v5": 0.6, "yolox": 0.65}
DEFAULT_BOXES = 300
"""M of an end-to-end head in a default export."""
STRIDES = (8, 16, 32)
LARGEST = 30.0
"""Logarithm of a size in cells, beyond which a box covers every image."""


@dataclass(frozen=True, slots=True)
class Extra:
    """The columns behind the class scores. count: their number. keypoints: their number and the numbers of each."""

    task: Task
    count: int = 0
    keypoints: tuple[int, int] | None = None
    prototypes: str | None = None

    def add_to(self, found: Detections, rows: Array, outputs: ImageOutputs) -> Detections:
        """Return the detections with masks or keypoints. rows: these columns of each detection [M, E]."""
        if self.prototypes is not None:
            return Detections(found.boxes, found.scores, found.classes, mask_levels(rows, outputs[1]))
        if self.keypoints is None:
            return found
        points = rows.reshape(len(rows), *self.keypoints).astype(np.float64)
        if self.keypoints[1] == 2:
            points = np.concatenate([points, np.ones((*points.shape[:2], 1))], axis=2)
        return Detections(found.boxes, found.scores, found.classes, keypoints=points)


def mask_levels(coefficients: Array, prototypes: Array) -> NDArray[np.float32]:
    """Return coefficients [M, E] · prototypes [E, h, w]: positive inside a mask."""
    flat = prototypes.reshape(len(prototypes), -1).astype(np.float32)
    return np.asarray((coefficients.astype(np.float32) @ flat).reshape(-1, *prototypes.shape[1:]))


def find_extra(question: HeadQuestion, columns: int, fixed: int) -> Extra | None:
    """Return the columns behind the class scores. fixed: columns before them. None if the metadata contradict."""
    task = question.network.task
    prototypes = only_output(question.floats, 4)
    if task is Task.SEGMENT or (task is None and prototypes is not None and len(question.floats) == 2):
        count = None if prototypes is None else prototypes.shape[1]
        return Extra(Task.SEGMENT, count, None, prototypes.name) if prototypes is not None and count else None
    if task is Task.POSE:
        shape = question.network.keypoints or guess_keypoints(columns - fixed - (question.classes or 1))
        return None if shape is None else Extra(Task.POSE, shape[0] * shape[1], shape)
    return Extra(Task.DETECT) if task in (None, Task.DETECT) else None


def guess_keypoints(count: int) -> tuple[int, int] | None:
    """Return number and numbers of keypoints in so many columns: three each if that fits."""
    if count <= 0 or (count % 3 and count % 2):
        return None
    return (count // 3, 3) if count % 3 == 0 else (count // 2, 2)


def box_output(question: HeadQuestion) -> OutputFacts | None:
    """Return the output [N, …, …] with the boxes: the named one, or the only one with three dimensions."""
    named = [output for output in question.floats if output.name == question.chosen]
    return only_output(named if question.chosen else question.floats, 3)


def find_v8(question: HeadQuestion) -> Head | None:
    """Return a v8 head."""
    output = box_output(question)
    if output is None:
        return None
    _, rows, columns = sizes(output)
    if not question.named and not (rows >= 5 and (columns == -1 or rows < columns)):
        return None
    extra = find_extra(question, rows, 4)
    if extra is None or not is_plausible(question, output, 4, rows - extra.count):
        return None
    return make_head("v8", question, output, extra, rows - 4)


def find_v5(question: HeadQuestion, layout: str = "v5") -> Head | None:
    """Return a v5 head."""
    output = box_output(question)
    if output is None:
        return None
    _, rows, columns = sizes(output)
    if not question.named and not (columns >= 6 and (rows == -1 or columns < rows)):
        return None
    extra = find_extra(question, columns, 5)
    if extra is None or extra.task is Task.POSE:
        return None
    if not question.named and columns - extra.count == 6 and output.whole_last is not False:
        return None  # end-to-end, or perhaps
    if not is_plausible(question, output, 5, columns - extra.count):
        return None
    return make_head(layout, question, output, extra, columns - 5)


def is_plausible(question: HeadQuestion, output: OutputFacts, fixed: int, columns: int) -> bool:
    """Return True unless a head without a name has an example whose values are not boxes and probabilities."""
    if question.named or output.example is None or not len(output.example):
        return True
    first = output.example[0]
    return are_rows_of_boxes((first.T if fixed == 4 else first)[:, :columns])


def find_yolox(question: HeadQuestion) -> Head | None:
    """Return a YOLOX head, whose shape is that of v5: only if it is named."""
    return find_v5(question, "yolox") if question.named else None


def make_head(layout: str, question: HeadQuestion, output: OutputFacts, extra: Extra, columns: int) -> Head | None:
    """Return a head with class scores and extra in these columns; None if no class is left, or others are declared."""
    classes = columns - extra.count
    if classes < 1 or (question.classes is not None and question.classes != classes and not question.named):
        return None
    outputs = (output.name,) if extra.prototypes is None else (output.name, extra.prototypes)
    parts = partial(compared_parts, layout, classes)
    return Head(layout, extra.task, outputs, classes, partial(decode_rows, layout, classes, extra), parts=parts)


def compared_parts(layout: str, classes: int, exact: Array, other: Array) -> dict[str, tuple[Array, Array]]:
    """Return boxes, scores and extra columns of two networks for a batch; boxes and extra times the root of the first
    one's best score."""
    pairs = [np.asarray(values.swapaxes(1, 2) if layout == "v8" else values, np.float64) for values in (exact, other)]
    start = 4 if layout == "v8" else 5
    scores = [rows[..., start : start + classes] for rows in pairs]
    if layout != "v8":
        scores = [each * rows[..., 4:5] for each, rows in zip(scores, pairs, strict=True)]
    weights = np.sqrt(np.clip(scores[0].max(axis=2, keepdims=True), 0.0, None))
    boxes, extra = ([rows[..., part] * weights for rows in pairs] for part in (slice(4), slice(start + classes, None)))
    found = {"boxes": (boxes[0], boxes[1]), "scores": (scores[0], scores[1])}
    return found | ({"coefficients": (extra[0], extra[1])} if extra[0].shape[2] else {})


def decode_rows(layout: str, classes: int, extra: Extra, outputs: ImageOutputs, canvas: Canvas) -> Detections:
    """Return the detections of one image."""
    values = outputs[0].astype(np.float64)
    rows = values.T if layout == "v8" else values
    if layout == "yolox":
        rows = cells_to_pixels(rows, canvas)
    start = 4 if layout == "v8" else 5
    scores = rows[:, start : start + classes]
    if layout != "v8":
        scores = scores * rows[:, 4:5]
    found, anchors = suppress(corners(rows), scores, OVERLAP[layout])
    return extra.add_to(found, rows[anchors, start + classes :], outputs)


def cells_to_pixels(rows: Array, canvas: Canvas) -> Array:
    """Return rows [A, …] with x, y, width, height in input pixels; cells are in the order of strides 8, 16, 32."""
    grids, steps = [], []
    for stride in STRIDES:
        x, y = np.meshgrid(np.arange(canvas[0] // stride), np.arange(canvas[1] // stride))
        grids.append(np.stack([x.ravel(), y.ravel()], axis=1))
        steps.append(np.full((x.size, 1), stride))
    grid, step = np.concatenate(grids), np.concatenate(steps)
    if len(grid) != len(rows):
        raise ValueError(f"{len(rows)} rows for {len(grid)} cells of an input of {canvas[0]} × {canvas[1]}")
    return np.concatenate(
        [(rows[:, :2] + grid) * step, np.exp(np.minimum(rows[:, 2:4], LARGEST)) * step, rows[:, 4:]], axis=1
    )


def find_end_to_end(question: HeadQuestion) -> Head | None:
    """Return an end-to-end head."""
    output = box_output(question)
    if output is None:
        return None
    _, rows, columns = sizes(output)
    extra = find_extra(question, columns, 5)
    if extra is None or columns != 6 + extra.count:
        return None
    if question.named or output.whole_last or (output.whole_last is None and rows in (DEFAULT_BOXES, -1)):
        outputs = (output.name,) if extra.prototypes is None else (output.name, extra.prototypes)
        return Head("end2end", extra.task, outputs, question.classes, partial(decode_end_to_end, extra))
    return None


def decode_end_to_end(extra: Extra, outputs: ImageOutputs, _: Canvas) -> Detections:
    """Return the detections of one image."""
    values = outputs[0].astype(np.float64)
    rows = values[score_order(values[:, :4], values[:, 4])]
    found = Detections(rows[:, :4], rows[:, 4], np.rint(np.clip(rows[:, 5], -1, MOST_CLASSES)).astype(np.intp))
    return extra.add_to(found, rows[:, 6:], outputs)


LAYOUTS = (
    Layout("v8", "[N, 4 + C, A]", find_v8),
    Layout("v5", "[N, A, 5 + C]", find_v5),
    Layout("end2end", "[N, M, 6]", find_end_to_end),
    Layout("yolox", "[N, A, 5 + C], YOLOX without its decoding", find_yolox),
)
