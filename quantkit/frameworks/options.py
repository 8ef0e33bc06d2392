"""Options that conversions have in common, whatever the framework."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from quantkit.values import check_number


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionOptions:
    """Options of a conversion to ONNX.

    opset: None for the converter's default. fixed_batch: None for a dynamic batch. tolerance: largest accepted
    |difference|, as a fraction of the output's largest magnitude.
    """

    opset: int | None = None
    fixed_batch: int | None = None
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        check_number("fixed_batch", self.fixed_batch, 1)
        check_number("tolerance", self.tolerance, 0.0, 1e6, whole=False)


class ConversionFields(TypedDict, total=False):
    """The keywords of a conversion that are fields of `ConversionOptions`."""

    opset: int | None
    fixed_batch: int | None
    tolerance: float
