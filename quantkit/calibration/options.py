"""The options of a calibration."""

from __future__ import annotations

from dataclasses import dataclass, field

from quantkit.data import DataOptions
from quantkit.errors import UsageError
from quantkit.histogram import HistogramMode
from quantkit.table import Algorithm

DEFAULT_MEMORY = 1 << 30


@dataclass(frozen=True, slots=True)
class CalibrateOptions:
    """How a calibration runs. Defaults suit most networks."""

    data: DataOptions = field(default_factory=DataOptions)
    histogram: HistogramMode = HistogramMode.TENSORRT
    algorithm: Algorithm | None = None
    """The header's algorithm; by default that of the rule."""
    tensorrt_version: str | None = None
    """For example `10.13.3`; by default the installed library's, else `DEFAULT_VERSION`."""
    backend: str = "auto"
    """`onnxruntime`, `tensorrt`, or `auto`: TensorRT where a table is written and TensorRT and a GPU are there."""
    provider: str = "cpu"
    max_memory: int = DEFAULT_MEMORY
    """Bytes of activations that are held at once."""
    force: bool = False
    """Replace what is there."""
    resume: bool = False
    checkpoint_every: int = 16
    """Batches between checkpoints."""
    learning_curve: bool = False

    def __post_init__(self) -> None:
        if self.backend not in ("auto", "onnxruntime", "tensorrt"):
            raise UsageError(f"unknown backend {self.backend!r}", remedy="one of auto, onnxruntime, tensorrt")
        if self.provider not in ("cpu", "cuda"):
            raise UsageError(f"unknown provider {self.provider!r}", remedy="one of cpu, cuda")
        if self.learning_curve and self.resume:
            raise UsageError(
                "a resumed run has no learning curve: its first part is over", remedy="leave out one of the two"
            )
        if self.checkpoint_every < 1 or self.max_memory < 1:
            raise UsageError("checkpoint_every and max_memory are at least 1", remedy="give a positive number")
