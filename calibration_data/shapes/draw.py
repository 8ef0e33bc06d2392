"""Draw the data set of shapes: circles, squares and triangles on noise, with labels in the layout of Ultralytics.

Needs Python 3.10 or newer, numpy and Pillow.

    python draw.py FOLDER                      boxes as labels
    python draw.py FOLDER --outlines           outlines as labels, for instance segmentation
    python draw.py FOLDER --masks              a mask for every image besides, for semantic segmentation
    python draw.py FOLDER --train 64 --val 96  another number of images

writes FOLDER/data.yaml, FOLDER/images/{train,val}, FOLDER/labels/{train,val} and FOLDER/masks/{train,val}. A pixel of a
mask is 0 for the background and 1, 2, 3 for the classes. Every image depends on its name alone, on every machine: the
random numbers are those of numpy's RandomState, whose sequence is fixed, and shapes are filled by integer arithmetic.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

NAMES = ("circle", "square", "triangle")
WIDTH, HEIGHT = 320, 240
SIZES = (14, 120)
"""Smallest and largest extent of a shape, in pixels; COCO's small, medium and large objects are among them."""
MOST_SHAPES = 6
GRAIN = 4
"""Side of a grain of the noise, in pixels."""
SEEDS = {"val": 0, "train": 1 << 20}
"""First seed of each part of the data; training draws from seeds of its own."""

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Shape:
    """A shape: its class, its outline as corners (x, y) in pixels, its pixels [HEIGHT, WIDTH]."""

    kind: int
    outline: tuple[tuple[int, int], ...]
    pixels: Mask

    @cached_property
    def box(self) -> tuple[int, int, int, int]:
        """x1, y1, x2, y2 around its pixels."""
        rows, columns = np.flatnonzero(self.pixels.any(1)), np.flatnonzero(self.pixels.any(0))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@dataclass(frozen=True)
class Drawing:
    """An image [HEIGHT, WIDTH, 3] with its shapes, the ones in front last."""

    pixels: Pixels
    shapes: tuple[Shape, ...]

    @property
    def mask(self) -> Pixels:
        """The class of every pixel plus 1, and 0 for the background."""
        found = np.zeros((HEIGHT, WIDTH), np.uint8)
        for shape in self.shapes:
            found[shape.pixels] = shape.kind + 1
        return found


def fill(outline: tuple[tuple[int, int], ...]) -> Mask:
    """The pixels inside a convex outline, clockwise on the screen; none of them is outside of its corners' extent."""
    across, down = zip(*outline, strict=True)
    part = slice(max(min(down), 0), max(down) + 1), slice(max(min(across), 0), max(across) + 1)
    inside = np.zeros((HEIGHT, WIDTH), np.bool_)
    inside[part] = True
    y, x = np.ogrid[0:HEIGHT, 0:WIDTH]
    y, x = y[part[0]], x[:, part[1]]
    for (x1, y1), (x2, y2) in zip(outline, outline[1:] + outline[:1], strict=True):
        inside[part] &= (x2 - x1) * (y - y1) - (y2 - y1) * (x - x1) >= 0
    return inside


def corners(kind: int, x: int, y: int, radius: float, turn: float) -> tuple[tuple[int, int], ...]:
    """The outline of a shape around (x, y): 24 corners of a circle, 4 of a square, 3 of a triangle."""
    count = (24, 4, 3)[kind]
    angles = turn + np.arange(count) * (2 * np.pi / count)
    return tuple((round(x + radius * float(np.cos(a))), round(y + radius * float(np.sin(a)))) for a in angles)


def overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """The common area of two boxes as a fraction of the smaller one."""
    wide, tall = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))
    return max(wide, 0) * max(tall, 0) / smaller


def draw(seed: int) -> Drawing:
    """The image of a seed."""
    random = np.random.RandomState(seed)
    grains = random.randint(-1, 2, (HEIGHT // GRAIN, WIDTH // GRAIN, 3)) * random.randint(4, 40)
    pixels = np.kron(grains, np.ones((GRAIN, GRAIN, 1), np.int64)) + random.randint(30, 226, 3)
    for _ in range(random.randint(0, 5)):  # lines that belong to no class
        (x1, y1), (x2, y2) = random.randint(0, WIDTH, 2), random.randint(0, HEIGHT, 2)
        steps = np.linspace(0.0, 1.0, WIDTH)
        rows, columns = np.rint(y1 + (y2 - y1) * steps), np.rint(x1 + (x2 - x1) * steps)
        rows, columns = np.clip(rows, 0, HEIGHT - 2), np.clip(columns, 0, WIDTH - 2)
        pixels[rows.astype(int), columns.astype(int)] = random.randint(0, 256, 3)
        pixels[rows.astype(int) + 1, columns.astype(int)] = random.randint(0, 256, 3)
    shapes: list[Shape] = []
    pixels = pixels.astype(np.float64)
    for _ in range(random.randint(1, MOST_SHAPES + 1)):
        kind = int(random.randint(len(NAMES)))
        radius = 0.5 * SIZES[0] * (SIZES[1] / SIZES[0]) ** float(random.random_sample())
        reach = int(radius) + 2
        x, y = int(random.randint(reach, WIDTH - reach)), int(random.randint(reach, HEIGHT - reach))
        outline = corners(kind, x, y, radius, float(random.random_sample()) * 2 * np.pi)
        shape = Shape(kind, outline, fill(outline))
        colour = np.clip(pixels[y, x] + random.choice([-1, 1], 3) * random.randint(15, 140, 3), 0, 255)
        if all(overlap(shape.box, other.box) < 0.25 for other in shapes):
            shapes.append(shape)
            x1, y1, x2, y2 = shape.box
            around, inside = pixels[y1:y2, x1:x2], shape.pixels[y1:y2, x1:x2, None]
            np.copyto(around, colour + 0.5 * (around - pixels.mean((0, 1))), where=inside)
    return Drawing(np.clip(pixels, 0, 255).astype(np.uint8), tuple(shapes))


def label_row(shape: Shape, outlines: bool) -> str:
    """A line of a label file: class, then centre and size or the corners, as fractions of the image."""
    if outlines:
        values = [v for x, y in shape.outline for v in (x / WIDTH, y / HEIGHT)]
    else:
        x1, y1, x2, y2 = shape.box
        values = [(x1 + x2) / 2 / WIDTH, (y1 + y2) / 2 / HEIGHT, (x2 - x1) / WIDTH, (y2 - y1) / HEIGHT]
    return " ".join([str(shape.kind), *(f"{value:.6f}" for value in values)])


def write_part(folder: Path, part: str, count: int, options: Any) -> None:
    """Write the images of a part of the data, their labels, and their masks if asked for."""
    for kind in ("images", "labels", *(["masks"] if options.masks else [])):
        (folder / kind / part).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        drawing, name = draw(SEEDS[part] + index), f"{index:04d}"
        Image.fromarray(drawing.pixels).save(folder / "images" / part / f"{name}.png", compress_level=1)
        rows = [label_row(shape, options.outlines) + "\n" for shape in drawing.shapes]
        (folder / "labels" / part / f"{name}.txt").write_text("".join(rows), encoding="utf-8", newline="\n")
        if options.masks:
            Image.fromarray(drawing.mask).save(folder / "masks" / part / f"{name}.png")


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description="Draw circles, squares and triangles on noise, with labels.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=64, help="images for calibration (default: 64)")
    parser.add_argument("--val", type=int, default=96, help="images for evaluation (default: 96)")
    parser.add_argument("--outlines", action="store_true", help="label outlines rather than boxes")
    parser.add_argument("--masks", action="store_true", help="write a mask of classes for every image besides")
    options = parser.parse_args()
    for part in ("train", "val"):
        write_part(options.folder, part, getattr(options, part), options)
    names = "".join(f"  {index}: {name}\n" for index, name in enumerate(NAMES))
    text = f"path: .\ntrain: images/train\nval: images/val\nnames:\n{names}"
    (options.folder / "data.yaml").write_text(text, encoding="utf-8", newline="\n")
    print(f"{options.train} + {options.val} images in {options.folder}")


if __name__ == "__main__":
    main()
