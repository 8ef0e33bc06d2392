"""Options of `compile`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from quantkit.backends.tensorrt_rtx.architectures import DEFAULT_ARCHITECTURES, check_architectures
from quantkit.backends.tensorrt_rtx.compiling import GIB, CompileLimits
from quantkit.backends.tensorrt_rtx.static_shapes import static_shapes
from quantkit.compiling.gpus import check_gpus, gpu_architectures, usual_gpus
from quantkit.errors import UsageError
from quantkit.values import ModelInput, check_number

MOST_SECONDS = 86400.0
MIB = 1 << 20
LEAST_MEMORY = GIB // 4
"""Bytes with which the compiler's process does not even begin."""


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """Options for what the network is compiled for, and what it is compared with.

    architectures: such as sm86; by default those of the GPUs, else sm86 and sm120. gpus: to estimate; by default a
    usual one of each architecture. shapes: as for `build`; of a range, the best shape is compiled. batch: of inputs
    with a dynamic batch, by default 1. compare: with FP16. seconds, memory (bytes): limits of one compilation.
    """

    architectures: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    shapes: tuple[str, ...] = ()
    batch: int | None = None
    compare: bool = True
    seconds: float = 900.0
    memory: int = 32 * GIB
    force: bool = False

    def __post_init__(self) -> None:
        if self.architectures:
            check_architectures(self.architectures)
        if self.gpus:
            check_gpus(self.gpus)
        check_number("batch", self.batch, 1)
        check_number("the time limit", self.seconds, 1.0, MOST_SECONDS, whole=False)
        check_number("memory", self.memory, 1, 1 << 60)
        if self.memory < LEAST_MEMORY:
            size = f"{self.memory / MIB:.3g} MiB" if self.memory >= MIB else f"{self.memory} bytes"
            raise UsageError(f"{size} are not enough for the compiler", remedy="give it more: --memory 8G")

    @property
    def targets(self) -> tuple[str, ...]:
        """The architectures to compile for."""
        return self.architectures or gpu_architectures(self.gpus) or DEFAULT_ARCHITECTURES

    @property
    def estimated(self) -> tuple[str, ...]:
        """The GPUs to estimate."""
        return self.gpus or usual_gpus(self.targets)

    @property
    def limits(self) -> CompileLimits:
        """The limits of one compilation."""
        return CompileLimits(self.seconds, self.memory)


class CompileFields(TypedDict, total=False):
    """The keywords of `compile` that are fields of `CompileOptions`."""

    architectures: str | Sequence[str]
    gpus: str | Sequence[str]
    shapes: str | Sequence[str]
    batch: int | None
    compare: bool
    seconds: float
    memory: int
    force: bool


def input_shapes(options: CompileOptions, inputs: Sequence[ModelInput]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every input. UsageError as for `build`, and for a batch that no input takes."""
    shapes = static_shapes(inputs, options.shapes, options.batch or 1)
    if options.batch is not None and shapes == static_shapes(inputs, options.shapes, options.batch + 1):
        raise UsageError(
            f"a batch of {options.batch} cannot be set: no input is left whose batch is open",
            remedy="leave the batch out",
        )
    return dict(shapes)
