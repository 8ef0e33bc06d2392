"""The GPU profile: what operators take in FP16 and in INT8 on one GPU with one TensorRT, in a file for `quantize`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import Field, ValidationError

from quantkit.artifact import canonical_json, write_whole
from quantkit.errors import UsageError
from quantkit.frozen_record import FrozenRecord
from quantkit.gpu_profile.operator_size import OperatorKind, OperatorSize
from quantkit.paths import given_path
from quantkit.regular_file import read_regular

FORMAT = "quantkit GPU profile 1"
MOST_BYTES = 64 << 20
MOST_MICROSECONDS, MOST_COUNT = 1e9, 1 << 40
"""Limits far beyond every operator, so that a damaged file is refused instead of computed with."""
KINDS = "|".join(kind.value for kind in OperatorKind)

Time: TypeAlias = Annotated[float, Field(gt=0.0, le=MOST_MICROSECONDS)]
Difference: TypeAlias = Annotated[float, Field(ge=-MOST_MICROSECONDS, le=MOST_MICROSECONDS)]
"""Of two times, so that noise can make it negative."""
Count: TypeAlias = Annotated[int, Field(ge=1, le=MOST_COUNT)]


class OperatorTime(FrozenRecord):
    """The times of an operator inside a chain of its kind, in microseconds. `fp16_spread`, `int8_spread`: half the
    distance of the quartiles."""

    kind: Annotated[str, Field(pattern=f"^({KINDS})$")]
    inputs: Count
    outputs: Count
    rows: Count
    kernel: Annotated[float, Field(ge=1.0, le=MOST_COUNT)] = 1.0
    stride: Count = 1
    width: Annotated[int, Field(ge=0, le=MOST_COUNT)] = 0
    curved: bool = False
    fp16: Time
    int8: Time
    fp16_spread: Difference = 0.0
    int8_spread: Difference = 0.0

    @property
    def size(self) -> OperatorSize:
        """The operator."""
        return OperatorSize(
            OperatorKind(self.kind), self.inputs, self.outputs, self.rows, self.kernel, self.stride, self.width,
            self.curved,
        )  # fmt: skip


class BorderTime(FrozenRecord):
    """The cost of a tensor between FP16 and INT8, in microseconds. values: of the tensor."""

    values: Count
    quantize: Difference
    dequantize: Difference


class FormTime(FrozenRecord):
    """The time of a chain in each of its forms, in microseconds."""

    kind: str
    channels: int
    size: int
    batch: int
    kernel: int = 1
    word: str = ""
    act: str = "Relu"
    fp16: Time
    forms: dict[str, Time]


class GpuProfile(FrozenRecord):
    """Times measured on one GPU with one TensorRT."""

    format: str = FORMAT
    gpu: Annotated[str, Field(min_length=1)]
    compute_capability: str
    tensorrt: Annotated[str, Field(pattern=r"^\d+(\.\d+)*$")]
    date: str
    level: int
    operators: tuple[OperatorTime, ...]
    borders: tuple[BorderTime, ...]
    forms: tuple[FormTime, ...] = ()

    @property
    def major(self) -> int:
        """The major version of TensorRT."""
        return int(self.tensorrt.partition(".")[0])

    @property
    def where(self) -> str:
        """The machine and the day of the measurement: `NVIDIA H200, TensorRT 8.6.0, 2026-12-01`."""
        return f"{self.gpu}, TensorRT {self.tensorrt}, {self.date}"


def profile_text(profile: GpuProfile) -> str:
    """Return a profile as JSON, one row a line."""
    document = profile.model_dump(exclude_defaults=True)
    lines = [f'"format": {json.dumps(profile.format)}']
    for key, value in document.items():
        if isinstance(value, Sequence) and not isinstance(value, str):
            rows = ",\n".join(f"  {canonical_json(row)}" for row in value)
            lines.append(f"{json.dumps(key)}: [\n{rows}\n]")
        elif key != "format":
            lines.append(f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def write_profile(profile: GpuProfile, path: Path, *, force: bool = True) -> None:
    """Write a profile, completely or not at all. OutputError."""
    write_whole(path, profile_text(profile).encode(), force=force)


def load_profile(given: str | os.PathLike[str] | GpuProfile) -> GpuProfile:
    """Read a profile. UsageError where the file is missing, or is none."""
    if isinstance(given, GpuProfile):
        return given
    path = given_path(given, "the GPU profile")
    remedy = "quantkit profile -o gpu.json measures this GPU"
    try:
        document: dict[str, Any] = json.loads(read_regular(path, most=MOST_BYTES))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}", remedy=remedy) from None
    except (ValueError, RecursionError):
        raise UsageError(f"{path} is not JSON", remedy=remedy) from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise UsageError(f"{path} is no GPU profile of this version ({FORMAT!r})", remedy=remedy)
    try:
        return GpuProfile.model_validate_json(json.dumps(document))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UsageError(f"{path}: {place}: {first['msg']}", remedy=remedy) from None
