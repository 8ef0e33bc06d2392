"""Drawings of single images: the objects of two models on one picture, and maps of classes beside each other.

Colours on pictures are the same in light and dark mode, with a black casing, because any colour may lie beneath.
"""

from __future__ import annotations

from collections.abc import Sequence

from quantkit.evaluation.object_changes import ChangedMap, ChangedScene, SceneObject
from quantkit.report.charts import Chart, element, fit_text, text_line, text_width
from quantkit.report.charts_plane import BOLD
from quantkit.report.detection.pictures import ScenePicture, class_colour
from quantkit.report.wording import count_noun, format_percent

WIDTH = 360.0
TALLEST = 400.0
"""Maximum height of a picture, in pixels."""
MOST = 40
"""Objects of each model that are drawn, those with the highest scores."""
NOTABLE = 0.1
"""Change of the score of a matched object from which it is written beside it."""
LONGEST = 160.0
"""Longest text beside a box, in pixels."""
GAP, TITLE = 10.0, 20.0
"""Space between panels, and height of their titles."""


def scene_plot(scene: ChangedScene, picture: ScenePicture, candidate: str, width: float = WIDTH) -> Chart:
    """Draw the objects of labels, reference and candidate on one picture."""
    size = max(scene.size[0], 1), max(scene.size[1], 1)
    scale = min(width / size[0], TALLEST / size[1])
    wide, tall = size[0] * scale, size[1] * scale
    left = (width - wide) / 2
    body = [element("rect", {"class": "blank", "x": left, "y": 0.0, "width": wide, "height": tall})]
    body += [image_element(uri, left, 0.0, wide, tall) for uri in (picture.uri, picture.overlay) if uri] or [
        text_line(width / 2, tall / 2, picture.missing or "no image file", "tick", "middle")
    ]
    place = Placement(left, scale, (wide, tall))
    for truth in scene.labels[:MOST]:
        body += place.outline(truth, "box truth")
    tags: list[str] = []
    for ours in scene.reference[:MOST]:
        partner = partner_of(ours, scene.candidate)
        if partner is None:
            body += place.outline(ours, "box lost")
            tags += place.tag(ours, score_text(ours), "tag lost")
            continue
        body += place.outline(ours, "box both") + place.outline(partner, "box both moved")
        if abs((ours.score or 0.0) - (partner.score or 0.0)) >= NOTABLE:
            tags += place.tag(ours, f"{score_text(ours)} → {percent_score(partner)}", "tag both")
    for theirs in scene.candidate[:MOST]:
        if partner_of(theirs, scene.reference) is None:
            body += place.outline(theirs, "box new")
            tags += place.tag(theirs, score_text(theirs), "tag new")
    said = (
        f"{count_noun(len(scene.reference), 'object')} of the reference, {len(scene.candidate):,} of {candidate}: "
        f"{scene.lost:,} lost, {scene.new:,} new"
    )
    return Chart(f"Objects in {scene.sample}", f"{said}.", width, tall, (*body, *tags))


def partner_of(one: SceneObject, others: Sequence[SceneObject]) -> SceneObject | None:
    """Return the matching object of the other model, or None."""
    return others[one.partner] if one.partner is not None and 0 <= one.partner < len(others) else None


def score_text(found: SceneObject) -> str:
    """Return for example `dog 83 %`."""
    return f"{found.name} {percent_score(found)}".rstrip()


def percent_score(found: SceneObject) -> str:
    """Return a score as a percentage, or "" without a score."""
    return "" if found.score is None else format_percent(found.score, 0)


class Placement:
    """Positions of an image in a drawing: its left edge, its scale, and its size in pixels of the drawing."""

    def __init__(self, left: float, scale: float, size: tuple[float, float]) -> None:
        self._left, self._scale, self._size = left, scale, size
        self._rows: list[tuple[float, float, float]] = []

    def corners(self, found: SceneObject) -> tuple[float, float, float, float]:
        """Return x1, y1, x2, y2 in the drawing, inside the picture."""
        wide, tall = self._size
        x1, y1, x2, y2 = (v * self._scale if v == v else 0.0 for v in found.box)
        x1, x2 = (min(max(v, 0.0), wide) for v in (min(x1, x2), max(x1, x2)))
        y1, y2 = (min(max(v, 0.0), tall) for v in (min(y1, y2), max(y1, y2)))
        return self._left + x1, y1, self._left + x2, y2

    def outline(self, found: SceneObject, kind: str) -> list[str]:
        """Draw the box of an object, or its keypoints if it has some."""
        x1, y1, x2, y2 = self.corners(found)
        size = {"x": x1, "y": y1, "width": max(x2 - x1, 1.0), "height": max(y2 - y1, 1.0)}
        drawn = [element("rect", {"class": f"{kind} casing", **size}), element("rect", {"class": kind, **size})]
        for x, y, visible in found.keypoints:
            if visible > 0.0 and x == x and y == y:
                at = SceneObject(found.name, (x, y, x, y))
                cx, cy, _, _ = self.corners(at)
                drawn.append(element("circle", {"class": f"point {kind}", "cx": cx, "cy": cy, "r": 2.5}))
        return drawn

    def tag(self, found: SceneObject, text: str, kind: str) -> list[str]:
        """Write a text above an object, or inside it at the upper edge; shifted down from texts that are there."""
        x1, y1, _, _ = self.corners(found)
        room = self._size[0]
        fitting = fit_text(text, min(room, LONGEST))
        wide = BOLD * text_width(fitting)
        x = max(min(x1 + 1.0, self._left + room - wide - 2.0), self._left + 2.0)
        y = y1 - 4.0 if y1 > 16.0 else y1 + 14.0
        while any(abs(y - other) < 13.0 and x < end and start < x + wide for start, end, other in self._rows):
            y += 13.0
            if y > self._size[1] - 2.0:
                return []
        self._rows.append((x, x + wide, y))
        return [text_line(x, y, fitting, kind)]


def image_element(uri: str, x: float, y: float, width: float, height: float, kind: str = "picture") -> str:
    """Return an embedded image that fills a rectangle."""
    size = {"x": x, "y": y, "width": width, "height": height}
    return element("image", {"class": kind, "href": uri, **size, "preserveAspectRatio": "none"})


def scene_legend(has_labels: bool, width: float = 960.0) -> Chart:
    """Draw the kinds of boxes with their meaning, in as many lines as needed."""
    entries = [
        ("box both", "found by both: reference solid, candidate dashed"),
        ("box lost", "lost: found by the reference alone"),
        ("box new", "new: found by the candidate alone"),
        *([("box truth", "label")] if has_labels else []),
    ]
    body, x, y = [], 0.0, 14.0
    for kind, text in entries:
        room = 34.0 + text_width(text)
        if x and x + room > width:
            x, y = 0.0, y + 22.0
        swatch = {"x": x + 1.0, "y": y - 10.0, "width": 22.0, "height": 11.0}
        body += [element("rect", {"class": f"{kind} casing", **swatch}), element("rect", {"class": kind, **swatch})]
        body.append(text_line(x + 32.0, y, text))
        x += room + 20.0
    said = "; ".join(text for _, text in entries)
    return Chart("Kinds of boxes", f"{said}.", width, y + 8.0, tuple(body))


def map_legend(names: Sequence[str], width: float = 960.0) -> Chart:
    """Draw the colours of classes with their names, in as many lines as needed."""
    body, x, y = [], 0.0, 14.0
    for index, name in enumerate(names):
        fitting = fit_text(name, 140.0)
        room = 22.0 + text_width(fitting)
        if x and x + room > width:
            x, y = 0.0, y + 20.0
        fill = "#{:02x}{:02x}{:02x}".format(*class_colour(index))
        body.append(
            element("rect", {"class": "swatch", "x": x, "y": y - 10.0, "width": 14.0, "height": 11.0, "fill": fill})
        )
        body.append(text_line(x + 20.0, y, fitting))
        x += room + 16.0
    return Chart("Colours of classes", f"{', '.join(names)}.", width, y + 8.0, tuple(body))


def map_plot(changed: ChangedMap, panels: Sequence[tuple[str, str, str]], width: float = WIDTH) -> Chart:
    """Draw up to four pictures of an image in two columns. panels: title, data URI, reason why there is none."""
    height, wide = changed.reference.size
    column = (width - GAP) / 2
    tall = min(column * max(height, 1) / max(wide, 1), TALLEST / 2)
    body = []
    for index, (title, uri, missing) in enumerate(panels):
        x, y = (index % 2) * (column + GAP), (index // 2) * (tall + TITLE + GAP)
        body.append(text_line(x, y + 13.0, fit_text(title, column), "tick"))
        if uri:
            body.append(image_element(uri, x, y + TITLE, column, tall, "map"))
        else:
            body.append(element("rect", {"class": "blank", "x": x, "y": y + TITLE, "width": column, "height": tall}))
            body.append(text_line(x + column / 2, y + TITLE + tall / 2, fit_text(missing, column), "tick", "middle"))
    rows = -(-len(panels) // 2)
    said = f"{format_percent(changed.agreement)} of the pixels have the same class in both models"
    return Chart(
        f"Regions in {changed.sample}", f"{said}.", width, rows * (tall + TITLE) + (rows - 1) * GAP, tuple(body)
    )
