"""Where quantization loses: figures of every tensor and every layer, worst first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class TensorError:
    """Quantization error of one tensor by itself.

    scale: what it is quantized with (the largest of the channels for weights). sqnr_db: 10·log10(Σ x² / Σ (x − x̂)²).
    clipped: share of values outside ±127·scale. levels: how many of the 256 levels were used.
    """

    name: str
    node: str
    """The node that reads it as weights, or that makes it."""
    weight: bool
    scale: float
    rule: str
    sqnr_db: float
    clipped: float
    levels: int
    best_db: float = math.nan
    """sqnr_db with the best scale of the same kind."""
    estimated: bool = False
    """Whether the figures come from a histogram rather than from the values."""

    @property
    def misfit_db(self) -> float:
        """What the best scale would gain."""
        return self.best_db - self.sqnr_db if math.isfinite(self.best_db) else 0.0


@dataclass(frozen=True, slots=True)
class LayerError:
    """One layer (a node with weights or another quantized operator), by the error of the network's outputs.

    alone_db: SQNR of the outputs when only this layer is quantized. without_db: when all but this one are. gain_db:
    without_db less the SQNR when all are: what keeping it float gives back. share: of the noise of all layers alone.
    parameters: count of its weights. local_db: SQNR of its own output with its inputs and weights quantized.
    """

    node: str
    operator: str
    alone_db: float
    without_db: float
    gain_db: float
    share: float
    local_db: float
    parameters: int
    kept: str = ""
    """Why it is not quantized; empty where it is."""
    misfit_db: float = 0.0
    """The most that a better scale would gain in one of the tensors and weights that it reads."""


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Layers and tensors of a network, worst first.

    all_db: SQNR of the outputs with everything quantized, nan where nothing was run. samples: how many samples were
    run. source: where the scales came from. provenance: JSON values only.
    """

    model: str
    source: str
    all_db: float
    layers: tuple[LayerError, ...]
    tensors: tuple[TensorError, ...]
    samples: int
    notes: tuple[str, ...]
    provenance: Mapping[str, Any]
    seconds: float
    kept: tuple[str, ...] = ()
    """The worst layers that were asked for, as nodes to be excluded."""
    kept_db: float = math.nan
    """SQNR of the outputs with those kept float; nan where that was not asked for."""

    @property
    def ranked(self) -> tuple[str, ...]:
        """Nodes of the layers that are quantized, worst first."""
        return tuple(layer.node for layer in self.layers if not layer.kept)

