"""The result of a framework's exporter: an ONNX file in a scratch folder, and a function that runs the original."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from quantkit.errors import UsageError
from quantkit.values import Array, Batch
from quantkit.view import quoted

if TYPE_CHECKING:
    from numpy.random import Generator

RunNetwork: TypeAlias = Callable[[Batch], Sequence[Array]]
"""A function: inputs by name → outputs in the order of the ONNX model's."""
MOST_ELEMENTS = 1 << 59
"""Elements of at most eight bytes whose size in bytes fits into 64 bits with a sign."""
DIMS = re.compile("[1-9][0-9]{0,9}(,[1-9][0-9]{0,9}){0,31}")
DTYPES = ("float32", "float16", "float64", "int8", "uint8", "int16", "int32", "int64", "bool")


@dataclass(frozen=True, slots=True)
class Shape:
    """A frozen value: shape and dtype of an example input, batch first."""

    dims: tuple[int, ...]
    dtype: str = "float32"


@dataclass(frozen=True, slots=True)
class Exported:
    """A frozen value: an ONNX model as the exporter wrote it.

    source: framework and version. exporter: the program that wrote the file. example: inputs by name, batch first, in
    the order of the ONNX model's. run: the framework's own outputs for a batch, None if `unchecked` says why there are
    none. ranges: of inputs not drawn from a normal distribution. rounding: fraction of an output's magnitude by
    which the framework's own outputs may be off, 0 for a float model.
    """

    path: Path
    source: str
    exporter: str
    example: Batch
    run: RunNetwork | None
    unchecked: str = ""
    fixed_batch: int | None = None
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    rounding: float = 0.0
    notes: tuple[str, ...] = ()


def draw_inputs(found: Exported, batch: int, generator: Generator) -> Batch:
    """Return random inputs for `batch` samples.

    Floats are drawn from a normal distribution, or uniformly from their range; others from the example's values.
    """
    return {n: random_like(array, batch, generator, found.ranges.get(n)) for n, array in found.example.items()}


def random_like(array: Array, batch: int, generator: Generator, limits: tuple[float, float] | None = None) -> Array:
    """Return a random array of the example's dtype with `batch` as size of its first axis; scalars are unchanged."""
    if not array.ndim:
        return array
    shape = (batch, *array.shape[1:])
    if array.dtype.kind == "f" and limits:
        return generator.uniform(*limits, shape).astype(array.dtype)
    if array.dtype.kind == "f":
        return generator.standard_normal(shape).astype(array.dtype)
    return np.ascontiguousarray(generator.choice(array.ravel(), shape)) if array.size else np.zeros(shape, array.dtype)


def example_input(shape: Shape) -> Array:
    """Return an input of that shape: zeros, and a 1 if it is not float, so that values drawn from it vary."""
    array = np.zeros(shape.dims, shape.dtype)
    if array.dtype.kind != "f" and array.size > 1:
        array.flat[-1] = 1
    return array


def parse_input_shape(text: str) -> tuple[str, Shape]:
    """Return name and shape from `image=1,3,224,224` or `ids=1,128:int64`. UsageError."""
    name, _, rest = text.partition("=")
    dims, _, dtype = rest.partition(":")
    sizes = tuple(int(part) for part in dims.split(",")) if DIMS.fullmatch(dims) else ()
    if not name or not sizes or math.prod(sizes) > MOST_ELEMENTS or (dtype or "float32") not in DTYPES:
        raise UsageError(
            f"--shape {quoted(text)} is not NAME=SIZE,SIZE,…[:DTYPE]",
            remedy="for example --shape image=1,3,224,224, or --shape ids=1,128:int64; the batch comes first",
        )
    return name, Shape(sizes, dtype or "float32")
