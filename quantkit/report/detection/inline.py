"""Charts of detectors for notebooks: precision over recall, shifts of scores, the objects of two models on images."""

from __future__ import annotations

from quantkit.errors import UsageError
from quantkit.evaluation.object_changes import ObjectChanges
from quantkit.evaluation.result import Evaluation
from quantkit.report.detection.curves import precision_plot, shift_plot
from quantkit.report.detection.objects import models_with_objects
from quantkit.report.detection.pictures import scene_picture
from quantkit.report.detection.scenes import scene_plot
from quantkit.report.inline import Inline, inline_chart

WIDTH = 420.0
PICTURE_WIDTH = 340.0
PICTURE = 210.0
"""Longest side of a picture in a notebook, in pixels, which keeps the notebook small."""
LARGEST = 9_000
"""Bytes of a picture in a notebook."""


def precision_chart(evaluation: Evaluation, name: str, *, width: float = WIDTH) -> Inline:
    """Draw precision over recall of a class, for all models. UsageError if there is no such class, or no labels."""
    curves: list[tuple[str, tuple[float, ...]]] = []
    known: dict[str, None] = {}
    for model, objects in models_with_objects(evaluation):
        known |= dict.fromkeys(curve.name for curve in objects.curves)
        for curve in (c for c in objects.curves if c.name == name):
            curves += [] if curves else [(evaluation.reference.name, curve.reference)]
            curves.append((model.name, curve.candidate))
    if not curves:
        remedy = f"name one of {', '.join(list(known)[:5])}" if known else "evaluate a detector on labelled images"
        raise UsageError(f"the evaluation has no precision of class {name!r}", remedy=remedy)
    return inline_chart(precision_plot(name, curves, width))


def shift_chart(evaluation: Evaluation, model: str | None = None, *, width: float = WIDTH) -> Inline:
    """Draw how the scores of matched objects shift. model: name of a candidate; None for the first. UsageError."""
    name, objects = choose_objects(evaluation, model)
    return inline_chart(shift_plot(name, objects.shifts, width))


def scene_chart(
    evaluation: Evaluation, place: int = 0, model: str | None = None, *, width: float = PICTURE_WIDTH
) -> Inline:
    """Draw an image with the objects of both models. place: 0 for the image that changed most. UsageError."""
    name, objects = choose_objects(evaluation, model)
    if not 0 <= place < len(objects.scenes):
        raise UsageError(
            f"there is no changed image {place}: {name} has {len(objects.scenes)} of them", remedy="count from 0"
        )
    scene = objects.scenes[place]
    picture = scene_picture(scene.path, scene.reference, scene.candidate, int(PICTURE), LARGEST)
    return inline_chart(scene_plot(scene, picture, name, width))


def choose_objects(evaluation: Evaluation, model: str | None) -> tuple[str, ObjectChanges]:
    """Return the name and the objects of a candidate, the first if none is named. UsageError if it has none."""
    found = {m.name: objects for m, objects in models_with_objects(evaluation)}
    name = next(iter(found), None) if model is None else model
    if name is None or name not in found:
        remedy = f"name one of {', '.join(list(found)[:5])}" if found else "evaluate a detector and a candidate"
        raise UsageError(f"the evaluation has no objects of {name or 'any candidate'}", remedy=remedy)
    return name, found[name]
