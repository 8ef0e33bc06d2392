"""Raw heads of the YOLO family: one output, or two, for each scale, without the decoding.

    layout     outputs                                              decoding
    v5-raw     [N, 3·(5 + C), H, W] or [N, 3, H, W, 5 + C]          x, y = (2σ − ½ + cell)·stride; w, h = (2σ)²·anchor
    v7-raw     the same, with YOLOv7's anchors
    v8-raw     [N, 4·R + C, H, W], or [N, 4·R, H, W] and            distances to the four edges in cells: the mean of
               [N, C, H, W]                                         a softmax over R = 16 bins, or the value (R = 1)

Stride is the input's height divided by H. Anchors are those of the published models on COCO; a network with anchors of
its own has to be exported with its decoding. NMS and thresholds are those of the decoded heads (see `yolo`).

Sources: YOLOv5's `Detect`, YOLOv7's `cfg/training/yolov7.yaml`, Ultralytics' `Detect`, `DFL` and `dist2bbox`; written
from their behaviour, not copied.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from quantkit.metrics.heads.detections import Detections, corners, sigmoid, softmax, suppress
from quantkit.metrics.heads.head import Canvas, Ending, Head, HeadQuestion, ImageOutputs, Layout, OutputFacts, sizes
from quantkit.metrics.heads.yolo import OVERLAP
from quantkit.metrics.task import Task
from quantkit.values import Array

ANCHORS: dict[tuple[str, int], tuple[tuple[int, ...], ...]] = {
    ("v5-raw", 3): ((10, 13, 16, 30, 33, 23), (30, 61, 62, 45, 59, 119), (116, 90, 156, 198, 373, 326)),
    ("v5-raw", 4): (
        (19, 27, 44, 40, 38, 94), (96, 68, 86, 152, 180, 137), (140, 301, 303, 264, 238, 542),
        (436, 615, 739, 380, 925, 792),
    ),
    ("v7-raw", 3): ((12, 16, 19, 36, 40, 28), (36, 75, 76, 55, 72, 146), (142, 110, 192, 243, 459, 401)),
}  # fmt: skip
"""Width and height of three anchors for each scale in pixels, the finest scale first; by layout and scales."""
OF_SCALE = 3
"""Anchors of a scale."""
BINS = 16
"""R of v8 … 12."""
FEWEST = 3
"""Scales of a head."""


def scales(question: HeadQuestion, rank: int) -> list[list[OutputFacts]]:
    """Return the outputs of each scale, the finest first; none if there are too few, or decoded outputs as well."""
    if not question.named and any(output.rank == 3 for output in question.floats):
        return []
    if question.certain and question.classes is None:
        return []  # a backbone has such outputs, too
    found: dict[tuple[int, ...], list[OutputFacts]] = defaultdict(list)
    for output in question.floats:
        if output.rank == rank:
            found[sizes(output)[2:4]].append(output)
    fitting = len(found) >= FEWEST and all(min(grid) > 0 for grid in found)
    return [found[grid] for grid in sorted(found, reverse=True)] if fitting else []


def find_anchored(layout: str, question: HeadQuestion) -> Head | None:
    """Return a v5-raw or v7-raw head. Without its name it is v5 if the metadata are Ultralytics'."""
    if not question.named and question.network.task is not None and layout == "v7-raw":
        return None
    found = scales(question, 5) or scales(question, 4)
    outputs = [scale[0] for scale in found if len(scale) == 1]
    columns = {sizes(output)[-1] if output.rank == 5 else sizes(output)[1] for output in outputs}
    if len(outputs) != len(found) or (layout, len(outputs)) not in ANCHORS or len(columns) != 1:
        return None
    count = columns.pop()
    if outputs[0].rank == 4:
        if count % OF_SCALE:
            return None
        count //= OF_SCALE
    classes = count - 5
    if classes < 1 or (question.classes is not None and question.classes != classes):
        return None
    done = outputs[0].ending is Ending.SIGMOID
    names = tuple(output.name for output in outputs)
    return Head(layout, Task.DETECT, names, classes, partial(decode_anchored, ANCHORS[layout, len(names)], done))


def decode_anchored(anchors: Sequence[Sequence[int]], done: bool, outputs: ImageOutputs, canvas: Canvas) -> Detections:
    """Return the detections of one image. done: the outputs have their sigmoid."""
    boxes, scores = [], []
    for output, sides in zip(outputs, anchors, strict=True):
        values = output
        if output.ndim == 3:
            height, width = output.shape[1:]
            values = output.reshape(OF_SCALE, -1, height, width).transpose(0, 2, 3, 1)
        height, width = values.shape[1:3]
        rows = values.astype(np.float64) if done else sigmoid(values)
        y, x = np.mgrid[:height, :width]
        stride = np.array([canvas[0] / width, canvas[1] / height])
        centre = (2.0 * rows[..., :2] - 0.5 + np.stack([x, y], axis=-1)) * stride
        size = (2.0 * rows[..., 2:4]) ** 2 * np.array(sides, np.float64).reshape(OF_SCALE, 1, 1, 2)
        boxes.append(corners(np.concatenate([centre, size], axis=-1).reshape(-1, 4)))
        scores.append((rows[..., 5:] * rows[..., 4:5]).reshape(-1, rows.shape[-1] - 5))
    return suppress(np.concatenate(boxes), np.concatenate(scores), OVERLAP["v5"])[0]


def find_distances(question: HeadQuestion) -> Head | None:
    """Return a v8-raw head."""
    found = scales(question, 4)
    if not found or len({len(scale) for scale in found}) != 1 or question.network.task not in (None, Task.DETECT):
        return None
    if len(found[0]) == 1:
        columns = {sizes(scale[0])[1] for scale in found}
        bins = {columns_to_bins(count, question.classes) for count in columns}
        if len(columns) != 1 or None in bins:
            return None
        classes = columns.pop() - 4 * (of_edge := bins.pop() or 0)
        outputs = [scale[0] for scale in found]
        ends = Ending.OTHER
    elif len(found[0]) == 2:
        pairs = [sorted(scale, key=lambda output: not is_edge_output(output, question)) for scale in found]
        classes, of_edge = sizes(pairs[0][1])[1], sizes(pairs[0][0])[1] // 4
        if not all(is_edge_output(edges, question) and sizes(edges)[1] == 4 * of_edge for edges, _ in pairs):
            return None
        outputs = [output for pair in pairs for output in pair]
        ends = pairs[0][1].ending
    else:
        return None
    if classes < 1 or (question.classes is not None and question.classes != classes):
        return None
    decode = partial(decode_distances, of_edge, len(found), ends is Ending.SIGMOID)
    return Head("v8-raw", Task.DETECT, tuple(output.name for output in outputs), classes, decode)


def columns_to_bins(columns: int, classes: int | None) -> int | None:
    """Return R of 4·R + C columns; None if it fits neither 16 nor 1."""
    if classes is None:
        return BINS if columns > 4 * BINS else None
    return (columns - classes) // 4 if columns - classes in (4 * BINS, 4) else None


def is_edge_output(output: OutputFacts, question: HeadQuestion) -> bool:
    """Return True if an output holds the edges of boxes rather than class scores."""
    columns = sizes(output)[1]
    return columns in (4 * BINS, 4) and columns != question.classes


def decode_distances(bins: int, count: int, done: bool, outputs: ImageOutputs, canvas: Canvas) -> Detections:
    """Return the detections of one image. count: scales. done: class scores have their sigmoid."""
    each = len(outputs) // count
    boxes, scores = [], []
    for at in range(0, len(outputs), each):
        values = np.concatenate(outputs[at : at + each], axis=0) if each > 1 else outputs[at]
        boxes.append(edges_to_boxes(values[: 4 * bins], bins, canvas))
        rows = values[4 * bins :].reshape(len(values) - 4 * bins, -1).T
        scores.append(rows.astype(np.float64) if done else sigmoid(rows))
    return suppress(np.concatenate(boxes), np.concatenate(scores), OVERLAP["v8"])[0]


def edges_to_boxes(values: Array, bins: int, canvas: Canvas) -> NDArray[np.float64]:
    """Return boxes [H·W, 4] in pixels from distances [4·R, H, W] to left, top, right and bottom edge."""
    height, width = values.shape[1:]
    edges = values.reshape(4, bins, -1).transpose(2, 0, 1).astype(np.float64)
    distances = softmax(edges) @ np.arange(bins) if bins > 1 else edges[..., 0]
    y, x = np.mgrid[:height, :width]
    centre = np.stack([x.ravel(), y.ravel()], axis=1) + 0.5
    found = np.concatenate([centre - distances[:, :2], centre + distances[:, 2:]], axis=1)
    return np.asarray(found * np.tile([canvas[0] / width, canvas[1] / height], 2))


LAYOUTS = (
    Layout("v5-raw", "one output per scale, [N, 3·(5 + C), H, W]", partial(find_anchored, "v5-raw")),
    Layout("v7-raw", "the same with YOLOv7's anchors", partial(find_anchored, "v7-raw")),
    Layout("v8-raw", "one output per scale, [N, 64 + C, H, W]", find_distances),
)
