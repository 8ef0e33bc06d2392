"""Sections of detectors, instance segmentation and keypoints: precision, matched objects, images that changed most."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import TypeAlias

from quantkit.evaluation.object_changes import ChangedScene, ObjectChanges, PrecisionChange, RegionChange, SceneObject
from quantkit.evaluation.result import Evaluation, ModelScore
from quantkit.report.charts_rows import format_interval_ends
from quantkit.report.detection.curves import mean_precision, precision_plot, shift_plot
from quantkit.report.detection.pictures import scene_picture
from quantkit.report.detection.scenes import partner_of, percent_score, scene_legend, scene_plot
from quantkit.report.page import Block, Cell, Drawing, Gallery, PageSection, PageTable
from quantkit.report.wording import count_noun, format_number, format_percent, format_signed

CLASSES, MOST = 15, 200
"""Classes that are visible at first, and classes in all; the page says how many are omitted."""
CURVES = 9
"""Classes whose precision is drawn."""
SCENES = 12
FAINT = 0.4
"""Strength of the colour of changes whose interval includes zero."""
NARROW = 340.0
RECALLS = (25, 50, 75)
"""Recalls in percent whose precision is listed."""

Model: TypeAlias = tuple[ModelScore, ObjectChanges]


def models_with_objects(evaluation: Evaluation) -> list[Model]:
    """Return the candidates that have objects, with these."""
    return [(m, m.objects) for m in evaluation.candidates if m.objects is not None]


# ── precision ───────────────────────────────────────────────────────────────────────────────────────────────────────


def precision_section(evaluation: Evaluation) -> PageSection | None:
    """Return average precision by class and by size, and curves of precision over recall; None without labels."""
    found = models_with_objects(evaluation)
    blocks = [
        *change_tables(found, lambda o: o.classes, "class", "Average precision by class"),
        *change_tables(found, lambda o: o.sizes, "size", "Average precision by size of the objects"),
        *curve_blocks(found),
    ]
    if not blocks:
        return None
    lead = (
        f"Average precision of the {found[0][1].kind}, mean over IoU 0.50 … 0.95, and below it at IoU 0.50. "
        "Drops are in percentage points, with their 95 % interval."
    )
    marked = sum(excludes_zero(c) for _, objects in found for c in objects.classes)
    if any(math.isfinite(c.low) for _, objects in found for c in objects.classes):
        lead += (
            f" Marked ● and in full colour: {count_noun(marked, 'class')} whose interval excludes zero."
            if marked
            else " Every class's interval includes zero."
        )
    return PageSection("precision", "Average precision", lead, tuple(blocks))


def change_tables(
    found: Sequence[Model], select: Callable[[ObjectChanges], tuple[PrecisionChange, ...]], head: str, caption: str
) -> list[Block]:
    """Return a table of classes or sizes by candidates, in the order of the first candidate that has them."""
    by_name: dict[str, dict[int, PrecisionChange]] = {}
    for column, (_, objects) in enumerate(found):
        for change in select(objects):
            by_name.setdefault(change.name, {})[column] = change
    if not by_name:
        return []
    top = max((abs(c.drop) for row in by_name.values() for c in row.values() if math.isfinite(c.drop)), default=0.0)
    rows = tuple(change_row(name, row, len(found), top) for name, row in list(by_name.items())[:MOST])
    names = (head, "objects", "reference", *(f"drop of {m.name}" for m, _ in found))
    blocks: list[Block] = [PageTable(caption, names, rows[:CLASSES], cards=True)]
    if rows[CLASSES:]:
        more = count_noun(len(rows) - CLASSES, "more class")
        left_out = f"; {len(by_name) - MOST:,} more are omitted" if len(by_name) > MOST else ""
        blocks.append(PageTable("The other classes", names, rows[CLASSES:], cards=True, folded=more + left_out))
    return blocks


def change_row(name: str, row: dict[int, PrecisionChange], columns: int, top: float) -> tuple[Cell, ...]:
    """Return a class's row: its objects, the reference's precision, and each candidate's drop with its interval."""
    first = next(iter(row.values()))
    cells = [Cell(name), Cell(f"{first.objects:,}"), Cell(format_percent(first.reference), at_half(first.reference50))]
    for column in range(columns):
        change = row.get(column)
        if change is None:
            cells.append(Cell("–"))
            continue
        cells.append(drop_of(change, f"{format_percent(change.candidate)}, {at_half(change.candidate50)}", top))
    return tuple(cells)


def drop_of(change: PrecisionChange | RegionChange, note: str, top: float) -> Cell:
    """Return the cell of a drop with its interval; colour: the drop relative to `top`, faint if by chance."""
    sure = excludes_zero(change)
    strength = 1.0 if sure or not math.isfinite(change.low) else FAINT
    tint = strength * change.drop / top if top and math.isfinite(change.drop) else 0.0
    drop = f"{format_signed(change.drop)} {format_interval_ends(change)}".rstrip()
    return Cell(drop + " ●" * sure, note, tint=tint)


def at_half(precision: float) -> str:
    """Return for example `AP50 62.31 %`."""
    return f"AP50 {format_percent(precision)}"


def excludes_zero(change: PrecisionChange | RegionChange) -> bool:
    """Return True if the interval of a drop is known and does not include zero."""
    return change.low > 0.0 or change.high < 0.0


def curve_blocks(found: Sequence[Model]) -> list[Block]:
    """Return curves of the classes with the largest drops, with the curves of all candidates."""
    names = list(dict.fromkeys(c.name for _, objects in found for c in objects.curves))[:CURVES]
    drawings = []
    for index, name in enumerate(names, 1):
        curves: list[tuple[str, tuple[float, ...]]] = []
        for model, objects in found:
            for curve in (c for c in objects.curves if c.name == name):
                curves += [] if curves else [("reference", curve.reference)]
                curves.append((model.name, curve.candidate))
        head = ("model", *(f"recall {r} %" for r in RECALLS), "mean")
        rows = tuple(
            (Cell(m), *(Cell(precision_at(v, r)) for r in RECALLS), Cell(format_percent(mean_precision(v), 1)))
            for m, v in curves
        )
        table = PageTable(f"Precision of {name}", head, rows, folded="As a table")
        drawings.append(Drawing(f"curve-{index}", precision_plot(name, curves), None, "", table, heading=name))
    return [Gallery(tuple(drawings))] if drawings else []


def precision_at(values: Sequence[float], recall: int) -> str:
    """Return the precision at a recall in percent."""
    return format_percent(values[round((len(values) - 1) * recall / 100)], 1) if values else "–"


# ── matched objects ─────────────────────────────────────────────────────────────────────────────────────────────────


def matches_section(evaluation: Evaluation) -> PageSection | None:
    """Return which of the reference's objects the candidates find again, and how their scores shift."""
    found = models_with_objects(evaluation)
    if not found:
        return None
    rows = tuple(
        (
            Cell(model.name),
            Cell(format_percent(o.matches.share), ends_of_share(o.matches.low, o.matches.high)),
            Cell(f"{o.matches.found:,} of {o.matches.objects:,}"),
            Cell(f"{o.matches.new:,}"),
            Cell(format_number(o.matches.mean_iou, 3)),
            Cell(f"{format_signed(o.matches.shift)} pp"),
            Cell(f"{o.changed_images:,}"),
        )
        for model, o in found
    )
    head = (
        "model",
        "found again",
        "objects",
        "new",
        "mean IoU",
        "mean shift of scores",
        "images with a lost or new object",
    )
    table = PageTable("Objects of the reference that the candidate finds again", head, rows, cards=True)
    drawings = []
    for index, (model, o) in enumerate(found, 1):
        chart = shift_plot(model.name, o.shifts)
        figures = tuple(
            (Cell(f"{format_signed(100 * a)} … {format_signed(100 * b)}"), Cell(f"{count:,}"))
            for a, b, count in zip(o.shifts.edges, o.shifts.edges[1:], o.shifts.counts, strict=False)
            if count
        )
        below = PageTable(f"Shifts of scores: {model.name}", ("shift, pp", "objects"), figures, folded="As a table")
        drawings.append(Drawing(f"shift-{index}", chart, None, "", below, heading=model.name))
    threshold = format_percent(found[0][1].matches.threshold, 0)
    lead = (
        f"Objects with a score of at least {threshold}. An object is found again if the candidate has one of the same "
        "class with an IoU of at least 0.50. This needs no labels; changes of scores are in percentage points (pp)."
    )
    return PageSection("objects", "Objects found again", lead, (table, Gallery(tuple(drawings))))


def ends_of_share(low: float, high: float) -> str:
    """Return the interval of a share, or "" if it is unknown."""
    return f"{format_percent(low, 1)} … {format_percent(high, 1)}" if math.isfinite(low) and math.isfinite(high) else ""


# ── images ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def scenes_section(evaluation: Evaluation) -> PageSection | None:
    """Return the images that changed most, alternating between candidates; each image is shown only once."""
    found = models_with_objects(evaluation)
    turns = zip_longest(*([(model.name, scene) for scene in o.scenes] for model, o in found))
    chosen: dict[tuple[str, object], tuple[str, ChangedScene]] = {}
    for name, scene in (pair for turn in turns for pair in turn if pair is not None):
        chosen.setdefault((scene.sample, scene.path), (name, scene))
    picked = list(chosen.values())[:SCENES]
    if not picked:
        return None
    has_labels = any(scene.labels for _, scene in picked)
    legend = Drawing("scene-legend", scene_legend(has_labels), scene_legend(has_labels, NARROW), "")
    drawings = [scene_drawing(f"scene-{i}", name, scene, len(found) > 1) for i, (name, scene) in enumerate(picked, 1)]
    lead = (
        "The images in which most objects are lost, new or shifted. Scores are written beside lost and new objects, "
        "and beside the others if they changed by at least 10 percentage points."
    )
    return PageSection("scenes", "Images that changed most", lead, (legend, Gallery(tuple(drawings))))


def scene_drawing(key: str, model: str, scene: ChangedScene, several: bool) -> Drawing:
    """Return an image with the objects of both models, and their scores as a table."""
    picture = scene_picture(scene.path, scene.reference, scene.candidate)
    rows = [
        (Cell(o.name), Cell(percent_score(o)), Cell("–" if p is None else percent_score(p)))
        for o in scene.reference
        for p in [partner_of(o, scene.candidate)]
    ]
    rows += [
        (Cell(o.name), Cell("–"), Cell(percent_score(o)))
        for o in scene.candidate
        if partner_of(o, scene.reference) is None
    ]
    table = PageTable(
        f"Scores in {scene.sample}", ("object", "reference", "candidate"), tuple(rows), folded="Scores as a table"
    )
    caption = f"{scene.lost:,} lost, {scene.new:,} new" + (f"; {model}" if several else "")
    chart = scene_plot(scene, picture, model)
    return Drawing(
        key, chart, None, caption + labelled_text(scene.labels), table if rows else None, heading=scene.sample
    )


def labelled_text(labels: Sequence[SceneObject]) -> str:
    """Return how many objects are labelled, or "" without labels."""
    return f"; {count_noun(len(labels), 'label')}" if labels else ""
