"""Values that several rooms share.

Batch         input name → array [N, …], C-contiguous, the model's dtype
ModelInput    name, dtype and shape of a network input
Selection     which samples of a data set are used, and in which order
Algorithm     a calibrator of TensorRT
QuantizedType INT8 or FP8
NetworkType   the types of a network's tensors: INT8, FP8, or some of each
"""

from __future__ import annotations

import numbers
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from quantkit.errors import UsageError
from quantkit.view import quoted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Self

T = TypeVar("T")
Array: TypeAlias = "NDArray[Any]"
BATCH_NAME = re.compile(r"n|b|bs|.*batch.*|n(um)?_?samples", re.IGNORECASE)
UNNAMED = re.compile(r"unk__|dim|[^A-Za-z]")
"""Names of dimensions that exporters make up."""
Batch: TypeAlias = Mapping[str, "NDArray[Any]"]
MOST_COUNT = (1 << 31) - 1
"""The largest number of things of one kind: what indices of 32 bits reach, as those of TensorRT."""
MOST_CLASSES = 1_000_000
"""Classes that a network can have; larger vocabularies are not known."""


def check_number(name: str, value: Any, least: float, most: float = MOST_COUNT, *, whole: bool = True) -> None:
    """Raise UsageError unless a number is in least … most, and a whole one; None, which was not given, passes.

    whole: False for any finite number.
    """
    kind: Any = numbers.Integral if whole else numbers.Real
    if value is None or (isinstance(value, kind) and not isinstance(value, bool) and least <= value <= most):
        return
    beyond = isinstance(value, kind) and not isinstance(value, bool) and value == value
    bound = "" if not beyond else f" of at least {least:g}" if value < least else f" of at most {most:.20g}"
    wanted = f"{'a whole number' if whole else 'a number'}{bound}"
    raise UsageError(f"{name} is {quoted(value)}", remedy=f"give {wanted}")


def checked_options(options: T | None, kind: type[T]) -> T:
    """Return the options of a verb, by default those without arguments. UsageError for a value of another type."""
    if options is None:
        return kind()
    if not isinstance(options, kind):
        raise UsageError(f"options is of type {type(options).__name__}", remedy=f"pass quantkit.{kind.__name__}(…)")
    return options


class NamedChoice(str, Enum):
    """An enumeration whose members a user chooses by their values."""

    @classmethod
    def named(cls, text: str) -> Self:
        """Return the member of that name. UsageError."""
        try:
            return cls(text)
        except ValueError:
            words = re.sub("(?<!^)(?=[A-Z])", " ", cls.__name__).lower()
            known = ", ".join(member.value for member in cls)
            raise UsageError(f"unknown {words} {text!r}", remedy=f"use one of {known}") from None


class QuantizedType(NamedChoice):
    """The 8-bit type of quantized tensors: whole numbers, or floating-point numbers (E4M3)."""

    INT8 = "int8"
    FP8 = "fp8"

    @property
    def largest(self) -> int:
        """The largest value of the type: a scale is amax divided by it."""
        return 127 if self is QuantizedType.INT8 else 448

    @property
    def stored(self) -> str:
        """The ONNX element type."""
        return "int8" if self is QuantizedType.INT8 else "float8e4m3fn"

    @property
    def other(self) -> QuantizedType:
        """INT8 of FP8, and FP8 of INT8."""
        return QuantizedType.FP8 if self is QuantizedType.INT8 else QuantizedType.INT8


class NetworkType(NamedChoice):
    """The type of a network's quantized tensors, or that there are some of each."""

    INT8 = "int8"
    FP8 = "fp8"
    MIXED = "mixed"

    @classmethod
    def of(cls, types: Iterable[QuantizedType]) -> NetworkType:
        """Return the type of a network whose operators have these types, at least one."""
        found = set(types)
        return cls.MIXED if len(found) > 1 else cls(found.pop().value)


class Algorithm(NamedChoice):
    """A calibrator of TensorRT, by its name in the header of a table."""

    ENTROPY_2 = "EntropyCalibration2"
    MIN_MAX = "MinMaxCalibration"
    ENTROPY = "EntropyCalibration"
    LEGACY = "LegacyCalibration"

    @property
    def shares_pools(self) -> bool:
        """True if TensorRT gives a pool's output the scale of its input (measured with TensorRT 8.6)."""
        return self in (Algorithm.ENTROPY_2, Algorithm.MIN_MAX)


@dataclass(frozen=True, slots=True)
class ModelInput:
    """One input of a network. `shape` holds an int for a fixed dimension, and its symbol or None for a dynamic one.

    batch_axis: the axis that counts samples; None for an input that belongs to every batch as a whole.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]
    mask: bool = False
    """True for a float mask that only a Softmax reads: it may hold −Inf."""
    batch_axis: int | None = 0

    @property
    def fixed_batch(self) -> int | None:
        """The fixed batch size of the model; None if it is dynamic, or the input has no batch axis."""
        size = self.shape[self.batch_axis] if self.batch_axis is not None and self.shape else None
        return size if isinstance(size, int) else None

    def with_free_batch(self) -> ModelInput:
        """Return the input with a dynamic batch axis; as it is without one."""
        if self.batch_axis is None or not self.shape:
            return self
        shape = list(self.shape)
        shape[self.batch_axis] = None
        return replace(self, shape=tuple(shape))

    def describe(self) -> str:
        """Return name, type and shape, for example `image float32 [N,3,224,224]`."""
        dims = ",".join("?" if d is None else str(d) for d in self.shape)
        return f"{self.name} {self.dtype} [{dims}]"


def with_free_batches(inputs: Sequence[ModelInput]) -> tuple[ModelInput, ...]:
    """Return inputs that take any number of samples; a fixed size stays where a state without batch axis needs it."""
    fixed = any(i.fixed_batch is not None for i in inputs)
    if fixed and any(i.shape and i.batch_axis is None for i in inputs):
        return tuple(inputs)
    return tuple(i.with_free_batch() for i in inputs)


def with_batch_axes(inputs: Sequence[ModelInput]) -> tuple[ModelInput, ...]:
    """Return the inputs of a network with their batch axes, as far as their shapes show them.

    The batch is the dimension that has a name like `batch` or `N`, wherever it is; else axis 0 of the inputs where it
    is dynamic, and the only dynamic axis of a state [layers, ?, size]; else, with fixed sizes alone, axis 0 where it is
    1, or as long as that of the first input.
    """
    named = {d for i in inputs for d in i.shape if isinstance(d, str) and BATCH_NAME.fullmatch(d)}
    firsts = [i.shape[0] for i in inputs if i.shape]
    fixed = [size for size in firsts if isinstance(size, int)]
    size = None if named or len(fixed) < len(firsts) or not fixed else 1 if 1 in fixed else fixed[0]

    def axis(i: ModelInput) -> int | None:
        found = next((k for k, d in enumerate(i.shape) if d in named), None)
        if found is not None or not i.shape:
            return found
        unnamed = [k for k, d in enumerate(i.shape) if d is None or (isinstance(d, str) and UNNAMED.match(d))]
        first = i.shape[0]
        if not isinstance(first, int):
            return 0 if not named or 0 in unnamed else None
        layers = not named and size is None and first > 1 and len(unnamed) == 1
        return 0 if first == size else unnamed[0] if layers else None

    return tuple(replace(i, batch_axis=axis(i)) for i in inputs)


@dataclass(frozen=True, slots=True)
class Selection:
    """A choice of samples: at most `limit`, spread evenly over the sorted list; shuffled with `seed` on request."""

    limit: int | None = None
    shuffle: bool = False
    seed: int = 0

    def of(self, count: int) -> list[int]:
        """Return indices into a list of `count` samples."""
        chosen = count if self.limit is None else min(self.limit, count)
        indices = [i * count // chosen for i in range(chosen)]
        if self.shuffle:
            import numpy as np

            order: NDArray[np.intp] = np.random.default_rng(self.seed).permutation(chosen)
            indices = [indices[i] for i in order]
        return indices
