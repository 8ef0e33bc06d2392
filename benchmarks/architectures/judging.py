"""What the benchmarks feed a network, and how they judge its predictions. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from architectures.compositions import compose, network_input, read_objects

Array = np.ndarray[Any, Any]
Predictions = Mapping[str, Array]

CALIBRATION_SEED, TEST_SEED = 2, 1
STEPS = (4, 8, 16)
"""Distances of a detector's cells by level, in pixels."""
SEEN = 0.25
"""Least score of an object that a detector sees."""


@dataclass(frozen=True, slots=True)
class Judge:
    """Images for calibration, uint8 [N, H, W, 3], and for tests, float32 [N, 3, H, W], with what is right.

    task: `classes`, `masks` or `boxes`. targets: class of every image [N]; mask of every image [N, H, W]; or image,
    cell and class of every object, [objects, 3].
    """

    task: str
    calibration: Array
    pixels: Array
    targets: Array

    def right(self, predictions: Predictions) -> float:
        """Return the percentage of images, pixels or objects whose class is right."""
        if self.task == "boxes":
            image, cell, label = self.targets.T
            return 100 * float((predictions["scores"][image, cell].argmax(axis=1) == label).mean())
        (found,) = predictions.values()
        return 100 * float((found.argmax(axis=1) == self.targets).mean())

    def agreement(self, reference: Predictions, predictions: Predictions) -> float:
        """Return the percentage of images, pixels or objects of which two networks say the same class."""
        if self.task == "boxes":
            seen = reference["scores"].max(axis=2) > SEEN
            same = reference["scores"][seen].argmax(axis=1) == predictions["scores"][seen].argmax(axis=1)
            return 100 * float((same & (predictions["scores"][seen].max(axis=1) > SEEN / 2)).mean())
        return 100 * float(
            np.mean([(reference[k].argmax(axis=1) == predictions[k].argmax(axis=1)).mean() for k in predictions])
        )

    def figures(self, reference: Predictions, predictions: Predictions) -> dict[str, float]:
        """Drop in points, agreement in percent, SQNR in dB; of several outputs the mean of their decibels."""
        return {
            "drop": round(self.right(reference) - self.right(predictions), 2),
            "agreement": round(self.agreement(reference, predictions), 2),
            "sqnr_db": round(float(np.mean([sqnr(reference[name], predictions[name]) for name in predictions])), 2),
        }


def sqnr(reference: Array, predictions: Array) -> float:
    """Return 10·log10(Σ FP32² / Σ (FP32 − quantized)²)."""
    noise = np.square(reference.astype(np.float64) - predictions).sum()
    return float(10 * np.log10(np.square(reference, dtype=np.float64).sum() / noise))


def judge_of_classes(calibration: Path, cifar10: Path, every: int) -> Judge:
    """Judge classifiers of CIFAR-10 by every so many of its test images."""
    images, labels = read_objects(cifar10 / "test")
    with np.load(calibration) as file:
        return Judge("classes", file["x"], network_input(images[::every]), labels[::every])


def judge_of_compositions(task: str, cifar10: Path, side: int, count: int) -> Judge:
    """Judge a segmenter or a detector by compositions of test images; calibration has compositions of others."""
    seen = compose(*read_objects(cifar10 / "train"), 512, side, CALIBRATION_SEED)
    unseen = compose(*read_objects(cifar10 / "test"), count, side, TEST_SEED)
    targets = unseen.masks if task == "masks" else object_cells(unseen.boxes, unseen.classes, side)
    return Judge(task, seen.images, network_input(unseen.images), targets)


def object_cells(boxes: Array, classes: Array, side: int) -> Array:
    """Return image, cell and class of every object: the cell nearest to its middle, on the level of its size.

    boxes: [N, objects, 4] in pixels. classes: [N, objects], −1 for none. Cells are counted level after level, by rows.
    """
    found = []
    for image, place in zip(*np.nonzero(classes >= 0), strict=True):
        left, top, right, bottom = boxes[image, place]
        size = right - left
        step = 4 if size <= 20 else 8 if size <= 40 else 16
        before = sum((side // finer) ** 2 for finer in STEPS if finer < step)
        places = (np.arange(side // step) + 0.5) * step
        column, row = (int(np.abs(places - middle).argmin()) for middle in ((left + right) / 2, (top + bottom) / 2))
        found.append((image, before + row * (side // step) + column, classes[image, place]))
    return np.array(found, np.int64)
