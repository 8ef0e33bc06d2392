"""Shapes that an engine is built for: the smallest, the best (for which kernels are chosen) and the largest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from quantkit.errors import UsageError
from quantkit.values import MOST_COUNT, ModelInput
from quantkit.view import quoted

DEFAULT_BATCHES = (1, 32, 32)
EXAMPLE_BATCHES = (1, 8, 32)
EXAMPLE_SIDE, EXAMPLE_LENGTH = 224, 128
"""Sizes in examples for a dynamic dimension other than the batch: of images [N,C,H,W], and of anything else."""
SHAPE = re.compile("[1-9][0-9]{0,9}(x[1-9][0-9]{0,9}){0,31}")


@dataclass(frozen=True, slots=True)
class ShapeRange:
    """The range of one input's shape; an optimization profile holds one for every dynamic input."""

    least: tuple[int, ...]
    best: tuple[int, ...]
    most: tuple[int, ...]

    @property
    def fixed(self) -> bool:
        """True if there is only one shape."""
        return self.least == self.most

    @property
    def text(self) -> str:
        """The range as text: `1x3x224x224:8x3x224x224:32x3x224x224`."""
        return ":".join("x".join(map(str, shape)) for shape in (self.least, self.best, self.most))


def parse_shapes(texts: Sequence[str], inputs: Sequence[ModelInput]) -> dict[str, ShapeRange]:
    """Parse `image=1:8:32` (batches only) or whole shapes of dynamic inputs; other inputs get the default batches.

    UsageError where an input is unknown, a dimension does not fit, or a dynamic dimension other than the batch is
    missing; its remedy is an example for these inputs.
    """
    given = read_given_shapes(texts, inputs)
    missing = [i for i in inputs if i.name not in given and dynamic_axes(i) not in ([], [0])]
    if missing:
        raise UsageError(
            f"input {missing[0].describe()} is dynamic in more than its batch, and only the batch has a default",
            remedy=shapes_example(missing),
        )
    return {i.name: given.get(i.name) or default_shape_range(i) for i in inputs}


def read_given_shapes(texts: Sequence[str], inputs: Sequence[ModelInput]) -> dict[str, ShapeRange]:
    """Return the ranges of the inputs that are named alone. UsageError as in `parse_shapes`."""
    known = {i.name: i for i in inputs}
    given: dict[str, ShapeRange] = {}
    for text in (part for whole in texts for part in whole.split(",") if part):
        name, separator, value = text.rpartition("=")
        if not separator or name not in known:
            raise UsageError(
                f"--shapes {quoted(text)} names no input of the network, which has {', '.join(known)}",
                remedy=shapes_example(inputs),
            )
        if name in given:
            raise UsageError(f"--shapes gives {name!r} twice", remedy="give each input once")
        given[name] = parse_shape_range(value, known[name])
    return given


def dynamic_axes(wanted: ModelInput) -> list[int]:
    """Return the axes of an input whose size is not fixed."""
    return [k for k, size in enumerate(wanted.shape) if not isinstance(size, int)]


def shapes_example(inputs: Sequence[ModelInput]) -> str:
    """Return `for example --shapes …` with ranges that fit the dynamic inputs; other advice if there are none."""
    dynamic = [i for i in inputs if dynamic_axes(i)]
    if not dynamic:
        return "leave it out: all shapes of this network are fixed"
    return "for example " + " ".join(f"--shapes {i.name}={example_shape_range(i)}" for i in dynamic)


def example_shape_range(wanted: ModelInput) -> str:
    """Return a range that fits an input: of its batch if only that is dynamic, else of whole shapes."""
    if dynamic_axes(wanted) == [0]:
        return ":".join(map(str, EXAMPLE_BATCHES))
    other = EXAMPLE_SIDE if len(wanted.shape) == 4 else EXAMPLE_LENGTH
    shapes = [
        [size if isinstance(size, int) else batch if k == 0 else other for k, size in enumerate(wanted.shape)]
        for batch in EXAMPLE_BATCHES
    ]
    return ":".join("x".join(map(str, shape)) for shape in shapes)


def default_shape_range(wanted: ModelInput) -> ShapeRange:
    """Return the range of an input that is fixed, or dynamic in its batch alone."""
    shapes = [tuple(size if isinstance(size, int) else batch for size in wanted.shape) for batch in DEFAULT_BATCHES]
    return ShapeRange(*shapes)


def parse_shape_range(text: str, wanted: ModelInput) -> ShapeRange:
    """Return the range of one input. UsageError."""
    parts = text.split(":")
    if not dynamic_axes(wanted):
        shape = default_shape_range(wanted).best
        if [parse_range_shape(part, wanted) for part in parts] != [shape] * len(parts):
            raise UsageError(f"--shapes {text}: input {wanted.describe()} has a fixed shape", remedy="leave it out")
        return ShapeRange(shape, shape, shape)
    remedy = shapes_example([wanted])
    if len(parts) not in (1, 3):
        raise UsageError(f"--shapes {text}: give one shape, or min:opt:max", remedy=remedy)
    shapes = [parse_range_shape(part, wanted) for part in (parts if len(parts) == 3 else parts * 3)]
    for low, high in ((shapes[0], shapes[1]), (shapes[1], shapes[2])):
        if any(a > b for a, b in zip(low, high, strict=True)):
            raise UsageError(f"--shapes {text}: shapes must grow from min to max", remedy=remedy)
    return ShapeRange(*shapes)


def parse_range_shape(text: str, wanted: ModelInput) -> tuple[int, ...]:
    """Parse `8` (a batch) or `8x3x224x224` as a shape of the input. UsageError."""
    sizes = tuple(int(size) for size in text.split("x")) if SHAPE.fullmatch(text) else ()
    if not sizes or max(sizes) > MOST_COUNT:
        raise UsageError(f"--shapes {quoted(text)}: not a shape", remedy=shapes_example([wanted]))
    if len(sizes) == 1 and len(wanted.shape) > 1:
        rest = wanted.shape[1:]
        if not all(isinstance(size, int) for size in rest):
            raise UsageError(
                f"--shapes {text}: input {wanted.describe()} is dynamic in more than its batch",
                remedy=shapes_example([wanted]),
            )
        sizes += tuple(size for size in rest if isinstance(size, int))
    fits = len(sizes) == len(wanted.shape) and all(
        not isinstance(want, int) or want == have for want, have in zip(wanted.shape, sizes, strict=True)
    )
    if not fits:
        raise UsageError(f"--shapes {text} does not fit input {wanted.describe()}", remedy=shapes_example([wanted]))
    return sizes
