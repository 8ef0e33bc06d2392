"""Where quantization loses: figures of every tensor and every layer, worst first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantkit.numerics import format_db
from quantkit.view import Block, Remarks, RichDisplay, ViewTable

MISFIT = 12.0
"""dB that a better scale gains, from which on a scale does not fit its tensor: a step four times too large. The scales
of entropy, minmax, percentile and mse on three networks: 5 dB at most, but where entropy cuts off what matters; a scale
eight times too large: 16 … 19 dB."""


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

    @property
    def misfit(self) -> bool:
        """Whether the scale does not fit."""
        return self.misfit_db >= MISFIT


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

    @property
    def misfit(self) -> bool:
        """Whether one of its scales does not fit."""
        return self.misfit_db >= MISFIT


@dataclass(frozen=True, slots=True)
class Sensitivity(RichDisplay):
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
    warnings: tuple[str, ...] = ()
    """Those of the notes that put the figures in doubt."""

    @property
    def ranked(self) -> tuple[str, ...]:
        """Nodes of the layers that are quantized, worst first."""
        return tuple(layer.node for layer in self.layers if not layer.kept)

    def _view_(self) -> Sequence[Block]:
        outputs = f": outputs at {format_db(self.all_db)} over {self.samples:,} samples" if self.samples else ""
        kept = [f"kept float: {', '.join(self.kept)}; outputs at {format_db(self.kept_db)} then"] if self.kept else []
        return (
            f"{Path(self.model).name}, scales from {self.source}{outputs}; worst first",
            ViewTable(LAYER_HEAD, [layer_cells(x) for x in self.layers if not x.kept], frozenset({0, 1})),
            ViewTable(TENSOR_HEAD, [tensor_cells(x) for x in self.tensors], frozenset({0, 1})),
            Remarks([*kept, *self.notes]),
        )


LAYER_HEAD = ("layer", "operator", "alone", "without it", "gain in float", "own output", "a better scale gains")
TENSOR_HEAD = ("tensor", "what", "SQNR", "clipped", "levels", "a better scale gains")


def layer_cells(layer: LayerError) -> tuple[str, ...]:
    """What a layer does to the outputs; what a better scale would gain where one of its scales does not fit."""
    return (
        layer.node,
        layer.operator,
        format_db(layer.alone_db),
        format_db(layer.without_db),
        format_db(layer.gain_db, "+.1f"),
        format_db(layer.local_db),
        format_db(layer.misfit_db) if layer.misfit else "",
    )


def tensor_cells(tensor: TensorError) -> tuple[str, ...]:
    """A tensor's own error."""
    return (
        tensor.name,
        "weight" if tensor.weight else "activation",
        format_db(tensor.sqnr_db),
        f"{tensor.clipped:.2%}",
        str(tensor.levels),
        format_db(tensor.misfit_db) if tensor.misfit else "",
    )
