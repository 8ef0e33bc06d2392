"""Signs that a detector is measured wrongly: on images prepared otherwise than in training, or with other classes.

nothing    its mAP at IoU 0.50 is next to nothing
order      it finds the objects, but would name far more of them rightly if the classes had another order
"""

from __future__ import annotations

import numpy as np

from quantkit.evaluation.plausibility import GAIN, PER_CLASS, matched_classes
from quantkit.evaluation.scenes.object_pairs import LEAST, pair_objects
from quantkit.metrics.boxes import Scene
from quantkit.metrics.objects.figures import ALL, ObjectFigures
from quantkit.metrics.objects.found import FoundObjects
from quantkit.metrics.objects.precision import mean_of_known
from quantkit.values import Array
from quantkit.view import percent_text

LOWEST = 0.05
"""mAP50 of a trained network on its own task: the least, with room; hard data sets have above 0.2."""


def implausible_objects(name: str, figures: ObjectFigures) -> str | None:
    """Return why the figures of a reference prove nothing; None if they are plausible."""
    table = class_table_of_pairs(figures)
    objects = int(figures.objects(ALL).sum())
    right, order = int(np.trace(table)), matched_classes(table)
    if objects >= PER_CLASS * len(figures.classes) > PER_CLASS and order - right >= GAIN * objects:
        return (
            f"{name} names {right:,} of {objects:,} objects rightly, and would {order:,} if the labels' classes had "
            "another order: give names of the classes to both sides (names in data.yaml, --classes for the network)"
        )
    at_50 = float(mean_of_known(figures.precisions(ALL, np.ones((1, len(figures.scenes))))[0, :, 1]))
    if objects < PER_CLASS or at_50 >= LOWEST:
        return None
    return (
        f"{name} has a mAP50 of {percent_text(at_50)} %, so that hardly anything can be lost: check the preprocessing "
        "(--preprocess), and that labels and network have the same classes (--classes)"
    )


def class_table_of_pairs(figures: ObjectFigures) -> Array:
    """Return the number of labels of a class that the network finds as a class [C, C], wherever both have a box."""
    pairs = [named_pairs(scene, found) for scene, found in zip(figures.scenes, figures.found, strict=True)]
    both = np.concatenate(pairs) if pairs else np.zeros((0, 2), np.intp)
    names, places = np.unique(both, return_inverse=True)
    table = np.zeros((names.size, names.size), np.int64)
    np.add.at(table, tuple(places.reshape(-1, 2).T), 1)
    return table


def named_pairs(scene: Scene, found: FoundObjects) -> Array:
    """Return the class of each label that is found, and of what is found there [M, 2]."""
    own = np.flatnonzero(~scene.objects.crowd)
    boxes, classes = scene.objects.boxes[own], scene.objects.classes[own]
    labels = FoundObjects(boxes, np.ones(len(own)), np.zeros(len(own), np.intp))
    nameless = FoundObjects(found.boxes, found.scores, np.zeros(len(found.scores), np.intp))
    pair = pair_objects(labels, nameless)
    kept = pair.kept
    high = np.flatnonzero(found.scores >= LEAST)
    return np.stack([classes[kept], found.classes[high][pair.partners[kept]]], axis=1)
