"""The calibration table as a value: a header, and a scale for every tensor."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from quantkit.errors import TableError
from quantkit.numerics import LEVELS, float32
from quantkit.tensorrt_version import number_text
from quantkit.values import Algorithm
from quantkit.view import Block, RichDisplay, ViewTable


def zero_scale_note(tensors: Sequence[str]) -> str:
    """Return a note about the tensors whose scale is 0, of which there is one at least."""
    names = ", ".join(tensors[:3]) + (" …" if len(tensors) > 3 else "")
    count = f"{len(tensors)} tensors were" if len(tensors) > 1 else "1 tensor was"
    return (
        f"{count} zero throughout and had the scale 0, with which TensorRT 8.6 does not build; quantkit build "
        f"uses 1/127 there: {names}"
    )


@dataclass(frozen=True, slots=True)
class Header:
    """The first line of a table.

    `TRT-8601-EntropyCalibration2`: version number and algorithm; TensorRT ignores a table whose header is not its own.
    `0 3ff0000000000000 3fefff2e48e8a71e`: the Legacy calibrator's cutoff and quantile, as hexadecimal doubles; before
    TensorRT 5 there are no spaces between the three (`spaced` is False).
    """

    algorithm: Algorithm
    version: int | None = None
    cutoff: float = 1.0
    quantile: float = 0.9999
    spaced: bool = True

    @property
    def text(self) -> str:
        """The line in the file."""
        if self.algorithm is not Algorithm.LEGACY:
            return f"TRT-{self.version}-{self.algorithm.value}"
        words = ["0", struct.pack(">d", self.cutoff).hex(), struct.pack(">d", self.quantile).hex()]
        return (" " if self.spaced else "").join(words)

    @property
    def version_text(self) -> str:
        """The version, for example `8.6.1`; `any` for the Legacy calibrator, whose header has none."""
        if self.version is None:
            return "any"
        return number_text(self.version)


@dataclass(frozen=True, slots=True)
class CalibrationTable(RichDisplay):
    """Scales by tensor name (float32 values as floats); the largest value that a scale can represent is 127·scale.

    `lines` keeps the lines of a file that was read, duplicates included; `newline` its line ends.
    """

    header: Header
    scales: Mapping[str, float]
    lines: tuple[str, ...] = field(default=())
    newline: str = "\n"

    def __post_init__(self) -> None:
        for name, scale in self.scales.items():
            if "\n" in name or "\r" in name or not name:
                raise TableError(
                    f"tensor name {name!r} is not possible in a calibration table",
                    remedy="rename the tensor",
                )
            if not 0.0 <= float32(scale) < float("inf"):
                raise TableError(f"tensor {name!r} has scale {scale}", remedy="calibrate again")

    def __len__(self) -> int:
        return len(self.scales)

    def amax(self, name: str) -> float:
        """Return the largest |x| that the scale of `name` can represent."""
        return self.scales[name] * LEVELS

    @property
    def zero(self) -> tuple[str, ...]:
        """The tensors that were zero throughout: their scale is 0."""
        return tuple(name for name, scale in self.scales.items() if not scale)

    def with_header(self, header: Header) -> CalibrationTable:
        """Return the same scales under another header."""
        return CalibrationTable(header, self.scales, self.lines, self.newline)

    def _view_(self) -> Sequence[Block]:
        rows = [(name, f"{scale:.4g}", f"{scale * LEVELS:.4g}") for name, scale in self.scales.items()]
        return f"{self.header.text}: {len(self)} tensors", ViewTable(("tensor", "scale", "amax"), rows)
