"""What a framework hands over: an ONNX file in a scratch folder, and its own way to run the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from quantkit.errors import UsageError
from quantkit.values import Array, Batch

if TYPE_CHECKING:
    from numpy.random import Generator

RunNetwork: TypeAlias = Callable[[Batch], Sequence[Array]]
"""Inputs by name → outputs in the order of the ONNX model's."""
DTYPES = ("float32", "float16", "float64", "int8", "uint8", "int16", "int32", "int64", "bool")


@dataclass(frozen=True, slots=True)
class Shape:
    """Shape and dtype of an example input, batch first."""

    dims: tuple[int, ...]
    dtype: str = "float32"


@dataclass(frozen=True, slots=True)
class Exported:
    """A network in ONNX as the exporter left it.

    source: framework and version. exporter: what made the file. example: inputs by name, batch first, in the order of
    the ONNX model's. run: the framework's own outputs for a batch, None where `unchecked` says why it cannot tell.
    ranges: of inputs that are not drawn from a normal distribution. rounding: share of an output's magnitude by which
    the framework's own outputs may be off, 0 for a float network.
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
    """Random inputs for `batch` samples: normal where floats are, or even over their range; else of the example's."""
    return {n: random_like(array, batch, generator, found.ranges.get(n)) for n, array in found.example.items()}


def random_like(array: Array, batch: int, generator: Generator, limits: tuple[float, float] | None = None) -> Array:
    """A random array of the example's dtype, with `batch` in place of its first axis; scalars stay as they are."""
    if not array.ndim:
        return array
    shape = (batch, *array.shape[1:])
    if array.dtype.kind == "f" and limits:
        return generator.uniform(*limits, shape).astype(array.dtype)
    if array.dtype.kind == "f":
        return generator.standard_normal(shape).astype(array.dtype)
    return np.ascontiguousarray(generator.choice(array.ravel(), shape)) if array.size else np.zeros(shape, array.dtype)


def example_input(shape: Shape) -> Array:
    """An input of that shape: zeros, with a 1 among them where it is not float, so that draws of it vary."""
    array = np.zeros(shape.dims, shape.dtype)
    if array.dtype.kind != "f" and array.size > 1:
        array.flat[-1] = 1
    return array


def parse_input_shape(text: str) -> tuple[str, Shape]:
    """`image=1,3,224,224` or `ids=1,128:int64` → name and shape. UsageError."""
    name, _, rest = text.partition("=")
    dims, _, dtype = rest.partition(":")
    try:
        sizes = tuple(int(part) for part in dims.split(",")) if dims else ()
    except ValueError:
        sizes = (0,)
    if not name or not sizes or min(sizes) < 1 or (dtype or "float32") not in DTYPES:
        raise UsageError(
            f"--shape {text!r} is not NAME=SIZE,SIZE,…[:DTYPE]",
            remedy="for example --shape image=1,3,224,224, or --shape ids=1,128:int64; the batch comes first",
        )
    return name, Shape(sizes, dtype or "float32")
