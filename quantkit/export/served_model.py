"""A served model as plain data: its file, its tensors, the batches it accepts, and its fastest settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from quantkit.values import ModelInput

Shape = tuple[int, ...]
PLAN, ONNX, ENSEMBLE = "tensorrt_plan", "onnxruntime_onnx", "ensemble"
"""Triton's names for platforms (ModelConfig.platform)."""


@dataclass(frozen=True, slots=True)
class ServedTensor:
    """An input or output of the model with its batch dimension; −1 for dynamic dimensions."""

    name: str
    dtype: str
    shape: Shape

    def as_input(self) -> ModelInput:
        """Return the tensor as a model input for preprocessing."""
        return ModelInput(self.name, self.dtype, tuple(None if size < 0 else size for size in self.shape))

    @classmethod
    def of(cls, source: ModelInput) -> ServedTensor:
        """Return a tensor of an ONNX model; dimensions without a number are dynamic."""
        return cls(source.name, source.dtype, tuple(s if isinstance(s, int) else -1 for s in source.shape))


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model to serve.

    files: name in the version's folder → source. model: sha256 of the network, "" if unknown. unbatched: why it does
    not accept batches of any size; "" if it does. max_batch: the largest batch, None without a limit. example_shapes:
    input → a complete shape for warm-up; dynamic inputs of unknown size are missing. comments: for the configuration.
    """

    path: Path
    platform: str
    files: Mapping[str, Path]
    inputs: tuple[ServedTensor, ...]
    outputs: tuple[ServedTensor, ...]
    bytes: int
    model: str = ""
    precision: str = ""
    unbatched: str = ""
    max_batch: int | None = None
    example_shapes: Mapping[str, Shape] = field(default_factory=dict)
    comments: tuple[str, ...] = ()
    explicit: bool = False
    """True if it has Q/DQ pairs."""


@dataclass(frozen=True, slots=True)
class BatchTuning:
    """The batch size and streams of the highest measured throughput.

    delay: microseconds that a request waits for others. why: the measurement behind it.
    """

    batch: int
    streams: int
    graph: bool
    delay: int
    largest: int
    why: str
