"""Values that several rooms share.

Batch         input name → array [N, …], C-contiguous, the model's dtype
ModelInput    name, dtype and shape of a network input
Selection     which samples of a data set are used, and in which order
Algorithm     a calibrator of TensorRT
"""

from __future__ import annotations

import numbers
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeAlias

from quantkit.errors import UsageError
from quantkit.view import shorten_middle

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Self

LONGEST = 80
"""Maximum number of characters of a value that an error quotes."""
Array: TypeAlias = "NDArray[Any]"
Batch: TypeAlias = Mapping[str, "NDArray[Any]"]


MOST_COUNT = (1 << 31) - 1
"""The largest number of things of one kind: what indices of 32 bits reach, as those of TensorRT."""


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
    raise UsageError(f"{name} is {shorten_middle(repr(value), LONGEST)}", remedy=f"give {wanted}")


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
    """One input of a network. `shape` holds an int for a fixed dimension, and its symbol or None for a dynamic one."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]
    mask: bool = False
    """True for a float mask that only a Softmax reads: it may hold −Inf."""

    @property
    def fixed_batch(self) -> int | None:
        """The fixed batch size of the model; None if it is dynamic."""
        first = self.shape[0] if self.shape else None
        return first if isinstance(first, int) else None

    def describe(self) -> str:
        """Return name, type and shape, for example `image float32 [N,3,224,224]`."""
        dims = ",".join("?" if d is None else str(d) for d in self.shape)
        return f"{self.name} {self.dtype} [{dims}]"


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
