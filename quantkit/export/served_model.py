"""What is served, as plain data: a model's file, its tensors, the batches it takes, and how it was fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from quantkit.values import ModelInput

Shape = tuple[int, ...]
PLAN, ONNX, ENSEMBLE = "tensorrt_plan", "onnxruntime_onnx", "ensemble"
"""Triton's names of platforms (ModelConfig.platform)."""


@dataclass(frozen=True, slots=True)
class ServedTensor:
    """An input or output as the model has it: with its batch dimension, −1 where a dimension is dynamic."""

    name: str
    dtype: str
    shape: Shape

    def as_input(self) -> ModelInput:
        """The same as preprocessing wants it."""
        return ModelInput(self.name, self.dtype, tuple(None if size < 0 else size for size in self.shape))

    @classmethod
    def of(cls, source: ModelInput) -> ServedTensor:
        """A tensor of an ONNX model: what has no number is dynamic."""
        return cls(source.name, source.dtype, tuple(s if isinstance(s, int) else -1 for s in source.shape))


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that is served.

    files: name below the version's folder → source. model: sha256 of the network, "" where nothing tells. unbatched:
    why it takes no batches of any size; "" where it does. most: the largest batch, None where there is no limit. usual:
    input → a whole shape that it takes, for warm-up; without a dynamic input whose size nothing tells. about: remarks
    for the configuration.
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
    most: int | None = None
    usual: Mapping[str, Shape] = field(default_factory=dict)
    about: tuple[str, ...] = ()
    explicit: bool = False
    """Whether it has Q/DQ pairs."""


@dataclass(frozen=True, slots=True)
class BatchTuning:
    """The batch size and the streams of the best measured throughput. delay: microseconds that a request waits for
    others. why: what was measured."""

    batch: int
    streams: int
    graph: bool
    delay: int
    largest: int
    why: str
