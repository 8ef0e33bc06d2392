"""The same objects as the outputs of every head, so that decoding them gives the objects back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from quantkit.values import Array

CANVAS = (128, 96)
"""Width and height of the input."""
CLASSES = 3
GRIDS = ((12, 16), (6, 8), (3, 4))
Row = tuple[float, float, float, float, float, int]
"""x1, y1, x2, y2, score, class."""


def logit(p: float) -> float:
    """Inverse of the sigmoid."""
    return float(np.log(p / (1 - p)))


def centred(row: Row) -> tuple[float, float, float, float]:
    """Centre and size."""
    x1, y1, x2, y2 = row[:4]
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1


def v8(rows: Sequence[Row], anchors: int = 60) -> Mapping[str, Array]:
    """Columns of centre, size and class scores."""
    made = np.zeros((4 + CLASSES, anchors), np.float32)
    for at, row in enumerate(rows):
        made[:4, at], made[4 + row[5], at] = centred(row), row[4]
    return {"output0": made[None]}


def v5(rows: Sequence[Row], anchors: int = 60) -> Mapping[str, Array]:
    """Rows of centre, size, objectness and class scores."""
    made = np.zeros((anchors, 5 + CLASSES), np.float32)
    for at, row in enumerate(rows):
        made[at, :4], made[at, 4], made[at, 5 + row[5]] = centred(row), row[4] ** 0.5, row[4] ** 0.5
    return {"output0": made[None]}


def end2end(rows: Sequence[Row], most: int = 20) -> Mapping[str, Array]:
    """Rows of corners, score and class."""
    made = np.zeros((most, 6), np.float32)
    made[: len(rows)] = np.array(rows, np.float32).reshape(-1, 6)
    return {"output0": made[None]}


def yolox(rows: Sequence[Row]) -> Mapping[str, Array]:
    """Rows of offset in cells, log size in cells, objectness and class scores; all in cells of stride 8."""
    made = np.zeros((sum(h * w for h, w in GRIDS), 5 + CLASSES), np.float32)
    for row in rows:
        x, y, width, height = centred(row)
        column, line = int(x // 8), int(y // 8)
        at = line * GRIDS[0][1] + column
        made[at, :4] = x / 8 - column, y / 8 - line, np.log(width / 8), np.log(height / 8)
        made[at, 4] = made[at, 5 + row[5]] = row[4] ** 0.5
    return {"output": made[None]}


def anchored(rows: Sequence[Row], anchors: Sequence[Sequence[int]], flat: bool) -> Mapping[str, Array]:
    """Raw v5 heads: each object at the cell and the anchor of a scale that can hold it."""
    made = [np.full((3, h, w, 5 + CLASSES), -12.0, np.float32) for h, w in GRIDS]
    for row in rows:
        x, y, width, height = centred(row)
        scale, anchor = next(
            (s, a)
            for s, sides in enumerate(anchors)
            for a in range(3)
            if width < 3.9 * sides[2 * a] and height < 3.9 * sides[2 * a + 1]
        )
        stride = 8 * 2**scale
        column, line = int(x // stride), int(y // stride)
        cell = made[scale][anchor, line, column]
        cell[:2] = logit((x / stride - column + 0.5) / 2), logit((y / stride - line + 0.5) / 2)
        sides = anchors[scale][2 * anchor : 2 * anchor + 2]
        cell[2:4] = [logit(np.sqrt(size / side) / 2) for size, side in zip((width, height), sides, strict=True)]
        cell[4] = cell[5 + row[5]] = logit(row[4] ** 0.5)
    if flat:
        made = [m.transpose(0, 3, 1, 2).reshape(-1, *m.shape[1:3]) for m in made]
    return {f"scale{at}": m[None] for at, m in enumerate(made)}


def distances(rows: Sequence[Row], bins: int, split: bool) -> Mapping[str, Array]:
    """Raw v8 heads: each object at a cell of a scale whose bins can hold its distances."""
    made = [np.full((4 * bins + CLASSES, h, w), -12.0, np.float32) for h, w in GRIDS]
    for row in rows:
        x, y, width, height = centred(row)
        scale = next((s for s in range(3) if max(width, height) / 2 / (8 * 2**s) < 13), 2)
        stride = 8 * 2**scale
        column, line = int(x // stride), int(y // stride)
        place = np.array([column + 0.5, line + 0.5])
        edges = np.concatenate([place - np.array(row[:2]) / stride, np.array(row[2:4]) / stride - place])
        cell = made[scale][:, line, column]
        if bins == 1:
            cell[:4] = edges
        else:
            for side, edge in enumerate(edges):  # two bins beside the distance, weighted so that their mean is it
                low = int(edge)
                cell[side * bins : (side + 1) * bins] = -50.0
                cell[side * bins + low] = np.log(max(1 - (edge - low), 1e-9))
                cell[side * bins + low + 1] = np.log(max(edge - low, 1e-9))
        cell[4 * bins + row[5]] = logit(row[4])
    if not split:
        return {f"scale{at}": m[None] for at, m in enumerate(made)}
    parts = {f"box{at}": m[None, : 4 * bins] for at, m in enumerate(made)}
    return parts | {f"class{at}": m[None, 4 * bins :] for at, m in enumerate(made)}


def detr(rows: Sequence[Row], queries: int = 10, background: bool = True) -> Mapping[str, Array]:
    """Logits and boxes of queries: softmax with no object last, or sigmoid."""
    logits = np.full((queries, CLASSES + background), -9.0, np.float32)
    boxes = np.tile(np.array([0.5, 0.5, 0.2, 0.2], np.float32), (queries, 1))
    if background:
        logits[:, -1] = 9.0
    for at, row in enumerate(rows):
        boxes[at] = np.array(centred(row)) / np.tile(CANVAS, 2)
        if background:
            logits[at] = -30.0
            logits[at, row[5]], logits[at, -1] = np.log(row[4]), np.log(1 - row[4])
        else:
            logits[at, row[5]] = logit(row[4])
    return {"logits": logits[None], "pred_boxes": boxes[None]}


def ssd(
    rows: Sequence[Row], anchors: int = 1200, background: bool = True, relative: bool = True
) -> Mapping[str, Array]:
    """Scores behind a softmax with the background first, or behind a sigmoid, and decoded boxes."""
    scores = np.zeros((anchors, CLASSES + background), np.float32)
    boxes = np.random.default_rng(1).uniform(0.1, 0.4, (anchors, 4)).astype(np.float32)
    boxes[:, 2:] += 0.3
    if background:
        scores[:, 0] = 1.0
    for at, row in enumerate(rows):
        boxes[at] = np.array(row[:4]) / np.tile(CANVAS, 2)
        scores[at, row[5] + background] = row[4]
        if background:
            scores[at, 0] = 1 - row[4]
    return {
        "scores": scores[None],
        "boxes": (boxes if relative else boxes * np.tile(CANVAS, 2).astype(np.float32))[None],
    }


def nms(rows: Sequence[Row], most: int = 20, relative: bool = False) -> Mapping[str, Array]:
    """As EfficientNMS: how many, boxes, scores and classes; what does not count is rubbish."""
    boxes, scores = np.full((most, 4), 7.0, np.float32), np.full(most, 0.9, np.float32)
    classes = np.full(most, 1, np.int32)
    for at, row in enumerate(rows):
        boxes[at], scores[at], classes[at] = row[:4], row[4], row[5]
    if relative:
        boxes /= np.tile(CANVAS, 2).astype(np.float32)
    count = np.array([[len(rows)]], np.int32)
    return {"num_dets": count, "det_boxes": boxes[None], "det_scores": scores[None], "det_classes": classes[None]}


def torchvision(rows: Sequence[Row]) -> Mapping[str, Array]:
    """Lists of one image, with labels from 1."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return {"boxes": table[:, :4], "labels": table[:, 5].astype(np.int64) + 1, "scores": table[:, 4]}


def selected(rows: Sequence[Row], anchors: int = 30, swapped: bool = True) -> Mapping[str, Array]:
    """Boxes and scores of all anchors, and the indices that a NonMaxSuppression selects."""
    boxes, scores = np.full((anchors, 4), 5.0, np.float32), np.full((CLASSES, anchors), 0.01, np.float32)
    indices = []
    for at, row in enumerate(rows):
        x1, y1, x2, y2, score, kind = row
        boxes[at + 3] = (y1, x1, y2, x2) if swapped else (x1, y1, x2, y2)
        scores[kind, at + 3] = score
        indices.append((0, kind, at + 3))
    return {"boxes": boxes[None], "scores": scores[None], "indices": np.array(indices, np.int64).reshape(-1, 3)}


def rows7(rows: Sequence[Row]) -> Mapping[str, Array]:
    """YOLOv7's rows of image, box, class and score."""
    return {"output": np.array([(0, *r[:4], r[5], r[4]) for r in rows], np.float32).reshape(-1, 7)}
