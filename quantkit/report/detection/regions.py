"""Sections of semantic segmentation: IoU by class, and maps of classes beside each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import zip_longest
from typing import TypeAlias

from quantkit.evaluation.object_changes import ChangedMap, RegionChange, RegionChanges
from quantkit.evaluation.result import Evaluation, ModelScore
from quantkit.report.detection.objects import drop_of
from quantkit.report.detection.pictures import MAP_SIDE, class_map_uri, difference_uri
from quantkit.report.detection.scenes import map_legend, map_plot
from quantkit.report.page import Block, Cell, Drawing, Gallery, PageSection, PageTable
from quantkit.report.thumbnails import LARGEST, thumbnail
from quantkit.report.wording import count_noun, format_percent

CLASSES, MOST = 15, 200
MAPS = 12
NAMED = 40
"""Classes in the legend."""
NARROW = 340.0

Model: TypeAlias = tuple[ModelScore, RegionChanges]


def models_with_regions(evaluation: Evaluation) -> list[Model]:
    """Return the candidates that have regions, with these."""
    return [(m, m.regions) for m in evaluation.candidates if m.regions is not None]


def regions_section(evaluation: Evaluation) -> PageSection | None:
    """Return agreement of the pixels, and IoU by class."""
    found = models_with_regions(evaluation)
    if not found:
        return None
    rows = tuple(
        (
            Cell(model.name),
            Cell(format_percent(r.agreement), interval_of_agreement(r)),
            Cell(format_percent(r.mean_iou)),
        )
        for model, r in found
    )
    head = ("model", "equal pixels", "mean IoU with the reference's regions")
    blocks: list[Block] = [PageTable("Regions compared with the reference's", head, rows, cards=True)]
    blocks += class_tables(found)
    lead = (
        "Equal pixels have the same class in both models. IoU is the common area of two regions divided by their "
        "united area. Drops are in percentage points, with their 95 % interval."
    )
    return PageSection("regions", "Regions", lead, tuple(blocks))


def interval_of_agreement(regions: RegionChanges) -> str:
    """Return the interval of the agreement, or "" if it is unknown."""
    known = math.isfinite(regions.low) and math.isfinite(regions.high)
    return f"{format_percent(regions.low)} … {format_percent(regions.high)}" if known else ""


def class_tables(found: Sequence[Model]) -> list[Block]:
    """Return IoU of every class: with the labels if there are some, else with the reference's regions."""
    by_name: dict[str, dict[int, RegionChange]] = {}
    for column, (_, regions) in enumerate(found):
        for change in regions.classes:
            by_name.setdefault(change.name, {})[column] = change
    if not by_name:
        return []
    every = [c for row in by_name.values() for c in row.values()]
    labelled = any(math.isfinite(c.reference) for c in every)
    top = max((abs(c.drop) for c in every if math.isfinite(c.drop)), default=0.0)
    rows = tuple(region_row(name, row, len(found), top, labelled) for name, row in list(by_name.items())[:MOST])
    first = ("class", "pixels", *(("reference",) if labelled else ()))
    head = (*first, *(f"drop of {m.name}" if labelled else m.name for m, _ in found))
    caption = "IoU by class" if labelled else "IoU by class with the reference's regions"
    blocks: list[Block] = [PageTable(caption, head, rows[:CLASSES], cards=True)]
    if rows[CLASSES:]:
        more = count_noun(len(rows) - CLASSES, "more class")
        blocks.append(PageTable("The other classes", head, rows[CLASSES:], cards=True, folded=more))
    return blocks


def region_row(name: str, row: dict[int, RegionChange], columns: int, top: float, labelled: bool) -> tuple[Cell, ...]:
    """Return a class's row: pixels, the reference's IoU, and each candidate's drop with its interval."""
    first = next(iter(row.values()))
    cells = [Cell(name), Cell(f"{first.pixels:,}")]
    cells += [Cell(format_percent(first.reference))] if labelled else []
    for column in range(columns):
        change = row.get(column)
        if change is None:
            cells.append(Cell("–"))
        elif not labelled:
            cells.append(Cell(format_percent(change.agreement)))
        else:
            note = f"{format_percent(change.candidate)}; {format_percent(change.agreement)} with the reference"
            cells.append(drop_of(change, note, top))
    return tuple(cells)


def maps_section(evaluation: Evaluation) -> PageSection | None:
    """Return the images whose regions changed most, alternating between candidates; each image is shown only once."""
    found = models_with_regions(evaluation)
    turns = zip_longest(*([(model, regions, changed) for changed in regions.maps] for model, regions in found))
    chosen: dict[tuple[str, object], tuple[ModelScore, ChangedMap]] = {}
    for model, _, changed in (entry for turn in turns for entry in turn if entry is not None):
        chosen.setdefault((changed.sample, changed.path), (model, changed))
    picked = list(chosen.values())[:MAPS]
    if not picked:
        return None
    names = found[0][1].names
    legends = map_legend(names[:NAMED]), map_legend(names[:NAMED], NARROW)
    drawings = tuple(map_drawing(f"map-{i}", model.name, changed) for i, (model, changed) in enumerate(picked, 1))
    lead = f"The images with the fewest equal pixels, in the colours of {count_noun(len(names), 'class')}."
    blocks = (Drawing("map-legend", legends[0], legends[1], ""), Gallery(drawings))
    return PageSection("maps", "Images whose regions changed most", lead, blocks)


def map_drawing(key: str, model: str, changed: ChangedMap) -> Drawing:
    """Return an image, its labels or the changed pixels, and the regions of both models."""
    photograph = thumbnail(changed.path, 2 * MAP_SIDE, LARGEST)
    fourth = ("changed pixels", difference_uri(changed.reference, changed.candidate), "maps of different sizes")
    if changed.label is not None:
        fourth = ("labels", class_map_uri(changed.label), "")
    panels = (
        ("image", photograph.uri, photograph.missing),
        fourth,
        ("reference", class_map_uri(changed.reference), ""),
        (model, class_map_uri(changed.candidate), ""),
    )
    caption = f"{format_percent(changed.agreement)} equal pixels"
    return Drawing(key, map_plot(changed, panels), None, caption, heading=changed.sample)
