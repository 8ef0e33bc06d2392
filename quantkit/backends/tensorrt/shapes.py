"""Shapes that an engine is built for: the smallest, the best (for which kernels are chosen) and the largest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from quantkit.errors import UsageError
from quantkit.values import ModelInput

DEFAULT_BATCHES = (1, 32, 32)
EXAMPLE = "for example --shapes image=1:8:32, or image=1x3x224x224:8x3x224x224:32x3x224x224"


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
    missing.
    """
    given: dict[str, str] = {}
    for text in (part for whole in texts for part in whole.split(",") if part):
        name, separator, value = text.rpartition("=")
        known = [i.name for i in inputs]
        if not separator or name not in known:
            raise UsageError(
                f"--shapes {text!r} names no input of the network, which has {', '.join(known)}", remedy=EXAMPLE
            )
        if name in given:
            raise UsageError(f"--shapes gives {name!r} twice", remedy="give each input once")
        given[name] = value
    return {i.name: shape_range(given.get(i.name), i) for i in inputs}


def shape_range(text: str | None, wanted: ModelInput) -> ShapeRange:
    """Return the range of one input. UsageError."""
    dynamic = [k for k, size in enumerate(wanted.shape) if not isinstance(size, int)]
    if not dynamic:
        shape = tuple(size for size in wanted.shape if isinstance(size, int))
        if text is not None and [parse_range_shape(part, wanted) for part in text.split(":")] != [shape] * len(
            text.split(":")
        ):
            raise UsageError(f"--shapes {text}: input {wanted.describe()} has a fixed shape", remedy="leave it out")
        return ShapeRange(shape, shape, shape)
    if text is None and dynamic != [0]:
        raise UsageError(
            f"input {wanted.describe()} is dynamic in more than its batch, and only the batch has a default",
            remedy=EXAMPLE,
        )
    parts = text.split(":") if text is not None else [str(size) for size in DEFAULT_BATCHES]
    if len(parts) not in (1, 3):
        raise UsageError(f"--shapes {text}: give one shape, or min:opt:max", remedy=EXAMPLE)
    shapes = [parse_range_shape(part, wanted) for part in (parts if len(parts) == 3 else parts * 3)]
    for low, high in ((shapes[0], shapes[1]), (shapes[1], shapes[2])):
        if any(a > b for a, b in zip(low, high, strict=True)):
            raise UsageError(f"--shapes {text}: shapes must grow from min to max", remedy=EXAMPLE)
    return ShapeRange(*shapes)


def parse_range_shape(text: str, wanted: ModelInput) -> tuple[int, ...]:
    """Parse `8` (a batch) or `8x3x224x224` as a shape of the input. UsageError."""
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", text):
        raise UsageError(f"--shapes {text!r}: not a shape", remedy=EXAMPLE)
    sizes = tuple(int(size) for size in text.split("x"))
    if len(sizes) == 1 and len(wanted.shape) > 1:
        rest = wanted.shape[1:]
        if not all(isinstance(size, int) for size in rest):
            raise UsageError(
                f"--shapes {text}: input {wanted.describe()} is dynamic in more than its batch", remedy=EXAMPLE
            )
        sizes += tuple(size for size in rest if isinstance(size, int))
    fits = len(sizes) == len(wanted.shape) and all(
        not isinstance(want, int) or want == have for want, have in zip(wanted.shape, sizes, strict=True)
    )
    if not fits:
        raise UsageError(f"--shapes {text} does not fit input {wanted.describe()}", remedy=EXAMPLE)
    return sizes
