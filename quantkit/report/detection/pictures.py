"""Pictures of scenes for the report: photographs, masks and maps of classes as data URIs."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quantkit.evaluation.object_changes import RunLengths, SceneObject
from quantkit.report.thumbnails import data_uri, png_bytes, thumbnail

SIDE = 380
"""Longest side of a photograph, in pixels."""
LARGEST = 32_000
"""Bytes of a photograph."""
MAP_SIDE = 190
"""Longest side of a map of classes, in pixels."""
IGNORED = 255
BOTH, ONLY_REFERENCE, ONLY_CANDIDATE = 1, 2, 3
OVERLAY = {BOTH: (63, 208, 255, 70), ONLY_REFERENCE: (255, 138, 76, 170), ONLY_CANDIDATE: (190, 140, 255, 170)}
"""Colours of masks, red, green, blue and opacity: of both models, of the reference alone, of the candidate alone."""
GOLDEN = 0.618_033_988_75
"""Step between the hues of classes, as a fraction of the circle, after which any number of hues stay apart."""


@dataclass(frozen=True, slots=True)
class ScenePicture:
    """An image as data URI, or the reason why there is none. overlay: masks to lay over it, or ""."""

    uri: str
    missing: str
    overlay: str = ""


def scene_picture(
    path: Path | None,
    reference: Sequence[SceneObject],
    candidate: Sequence[SceneObject],
    side: int = SIDE,
    largest: int = LARGEST,
) -> ScenePicture:
    """Return an image file, at most `side` pixels long and `largest` bytes, with the masks of both models."""
    photograph = thumbnail(path, side, largest)
    return ScenePicture(photograph.uri, photograph.missing, mask_overlay(reference, candidate))


def mask_overlay(reference: Sequence[SceneObject], candidate: Sequence[SceneObject]) -> str:
    """Return a transparent picture of the masks of two models, coloured by who has them; "" without masks."""
    ours, theirs = united_masks(reference), united_masks(candidate)
    if ours is None and theirs is None:
        return ""
    shape = next(m for m in (ours, theirs) if m is not None).shape
    ours = np.zeros(shape, np.bool_) if ours is None else ours
    theirs = np.zeros(shape, np.bool_) if theirs is None or theirs.shape != shape else theirs
    codes = np.where(ours, np.where(theirs, BOTH, ONLY_REFERENCE), np.where(theirs, ONLY_CANDIDATE, 0))
    return palette_uri(codes.astype(np.uint8), OVERLAY)


def united_masks(objects: Sequence[SceneObject]) -> NDArray[np.bool_] | None:
    """Return the pixels [h, w] of all objects, at most `SIDE` long; None without a mask."""
    found = [reduced_map(o.mask, SIDE) > 0 for o in objects if o.mask is not None]
    alike = [mask for mask in found if mask.shape == found[0].shape]
    return np.logical_or.reduce(alike) if alike else None


def reduced_map(encoded: RunLengths, side: int) -> NDArray[np.uint8]:
    """Return every n-th pixel of a map, so that neither side is longer than `side`."""
    pixels = encoded.pixels()
    step = max(1, -(-max(pixels.shape, default=1) // side))
    return pixels[step // 2 :: step, step // 2 :: step] if min(pixels.shape) > step else pixels[:side, :side]


def palette_uri(codes: NDArray[np.uint8], colours: dict[int, tuple[int, int, int, int]]) -> str:
    """Return a map as PNG: each code has its colour (red, green, blue, opacity), others are transparent."""
    from PIL import Image

    table, opacity = np.zeros((256, 3), np.uint8), np.zeros(256, np.uint8)
    for code, (red, green, blue, alpha) in colours.items():
        table[code], opacity[code] = (red, green, blue), alpha
    image = Image.fromarray(np.ascontiguousarray(codes))
    image.putpalette(table.tobytes())
    image.info["transparency"] = opacity.tobytes()
    return data_uri("image/png", png_bytes(image))


def class_colour(index: int) -> tuple[int, int, int]:
    """Return the colour of a class in maps: hues far apart, the first class dark, as it is mostly the background."""
    if index == 0:
        return 58, 64, 72
    red, green, blue = colorsys.hsv_to_rgb((0.55 + GOLDEN * (index - 1)) % 1.0, 0.62, 0.9 if index % 2 else 0.7)
    return round(255 * red), round(255 * green), round(255 * blue)


def class_map_uri(encoded: RunLengths) -> str:
    """Return a map of classes as PNG in the classes' colours; pixels that do not count are transparent."""
    codes = reduced_map(encoded, MAP_SIDE)
    return palette_uri(codes, {int(c): (*class_colour(int(c)), 255) for c in np.unique(codes) if c != IGNORED})


def difference_uri(one: RunLengths, other: RunLengths) -> str:
    """Return the pixels at which two maps differ as PNG."""
    ours, theirs = reduced_map(one, MAP_SIDE), reduced_map(other, MAP_SIDE)
    if ours.shape != theirs.shape:
        return ""
    return palette_uri(
        (ours != theirs).astype(np.uint8), {0: (58, 64, 72, 255), 1: (*OVERLAY[ONLY_REFERENCE][:3], 255)}
    )
