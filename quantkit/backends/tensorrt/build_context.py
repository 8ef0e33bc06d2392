"""The state of one build of an engine: the library, the GPU, and what was found out so far."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from quantkit.backends.tensorrt.device import GpuDevice, open_device
from quantkit.backends.tensorrt.messages import Messages, Phase
from quantkit.backends.tensorrt.options import BuildOptions
from quantkit.backends.tensorrt.shapes import ShapeRange
from quantkit.backends.tensorrt.table_coverage import CompletedTable
from quantkit.backends.tensorrt.versions import Features, detect_features, tensorrt
from quantkit.graph import Model
from quantkit.qdq.reader import has_qdq


@dataclass(slots=True)
class BuildContext:
    """The state of one build: the library, the GPU, and the messages so far."""

    model: Model
    options: BuildOptions
    ranges: Mapping[str, ShapeRange]
    phase: Phase
    trt: Any = field(init=False)
    features: Features = field(init=False)
    device: GpuDevice = field(init=False)
    messages: Messages = field(init=False)
    stopping: threading.Event = field(default_factory=threading.Event)
    notes: list[str] = field(default_factory=list)
    measured_anew: bool = True
    refused_times: bool = False
    """True if TensorRT did not take the file of an earlier build's kernel times."""
    covered: CompletedTable | None = None
    kept: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.trt = tensorrt()
        self.device = open_device(self.options.device)
        self.features = detect_features(self.trt)
        self.messages = Messages(self.phase)

    @property
    def explicit(self) -> bool:
        """True if the network itself defines by Q/DQ what is INT8."""
        return has_qdq(self.model)

    @property
    def strong(self) -> bool:
        """True if the network is strongly typed: it alone defines the precisions, and a table cannot be used."""
        return self.options.strongly_typed or self.features.always_strong
