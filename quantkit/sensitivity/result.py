"""Values of a sensitivity analysis: figures of every tensor and every layer, worst first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from quantkit.numerics import format_db
from quantkit.values import QuantizedType
from quantkit.view import Block, Remarks, SavableDisplay, ViewTable

MISFIT = 12.0
"""dB. If a better scale gains at least this much, the scale does not fit its tensor: its step is four times too large.

On three networks the scales of entropy, minmax, percentile and mse are within 5 dB of the best, except where entropy
clips important values; a scale that is eight times too large loses 16 … 19 dB."""


@dataclass(frozen=True, slots=True)
class TensorError:
    """The quantization error of one tensor by itself.

    scale: that of its Q/DQ pair (for weights the largest of all channels). sqnr_db: 10·log10(Σ x² / Σ (x − x̂)²).
    clipped: fraction of the values outside ±127·scale. levels: how many of the 256 levels are used.
    """

    name: str
    node: str
    """The node that reads it as weights, or that produces it as an activation."""
    weight: bool
    scale: float
    rule: str
    sqnr_db: float
    clipped: float
    levels: int
    best_db: float = math.nan
    """The value of sqnr_db with the best scale of the same kind."""
    estimated: bool = False
    """True if the figures come from a histogram rather than from the values."""

    @property
    def misfit_db(self) -> float:
        """The SQNR in dB that the best scale would gain."""
        return self.best_db - self.sqnr_db if math.isfinite(self.best_db) else 0.0

    @property
    def misfit(self) -> bool:
        """True if the scale does not fit the tensor."""
        return self.misfit_db >= MISFIT


@dataclass(frozen=True, slots=True)
class LayerError:
    """The effect of one layer (a node with weights or another quantized operator) on the network's outputs.

    alone_db: SQNR of the outputs when only this layer is quantized. without_db: when all layers but this one are.
    gain_db: without_db minus the SQNR with all layers quantized, which is what keeping it float gains. share: its
    fraction of the noise of all layers quantized alone. parameters: number of its weights. local_db: SQNR of its own
    output with its inputs and weights quantized.
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
    """The reason why it is not quantized; empty if it is."""
    misfit_db: float = 0.0
    """The most dB that a better scale would gain in one of the activations and weights that it reads."""
    type: str = ""
    """The ONNX element type of its pairs; empty if it is unknown, or they differ."""

    @property
    def title(self) -> str:
        """The operator, with its type if that is FP8."""
        return f"{self.operator}, FP8" if self.type == QuantizedType.FP8.stored else self.operator

    @property
    def misfit(self) -> bool:
        """True if one of its scales does not fit."""
        return self.misfit_db >= MISFIT


@dataclass(frozen=True, slots=True)
class Sensitivity(SavableDisplay):
    """Layers and tensors of a network, worst first.

    all_db: SQNR of the outputs with all layers quantized, nan if nothing was run. samples: number of samples that were
    run. source: the origin of the scales. provenance: JSON values only.
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
    """The worst layers, as nodes to exclude, if the caller asked for them."""
    kept_db: float = math.nan
    """SQNR of the outputs with these layers in float; nan if the caller did not ask for them."""
    warnings: tuple[str, ...] = ()
    """The notes that put the figures in doubt."""
    doubts: tuple[str, ...] = ()
    """Reasons why the ranking may be another on the right data, for example guessed preprocessing."""

    @property
    def statements(self) -> tuple[str, ...]:
        """The doubts as sentences that stand beside the figures."""
        return tuple(f"In doubt: {text}." for text in self.doubts)

    @property
    def ranked(self) -> tuple[str, ...]:
        """Nodes of the quantized layers, worst first."""
        return tuple(layer.node for layer in self.layers if not layer.kept)

    def _view_(self) -> Sequence[Block]:
        outputs = (
            f": SQNR of the outputs {format_db(self.all_db)} over {self.samples:,} samples" if self.samples else ""
        )
        kept = (
            [f"kept in float: {', '.join(self.kept)}; SQNR of the outputs then {format_db(self.kept_db)}"]
            if self.kept
            else []
        )
        return (
            f"{Path(self.model).name}, scales from {self.source}{outputs}; worst first",
            ViewTable(LAYER_HEAD, [layer_cells(x) for x in self.layers if not x.kept], frozenset({0, 1})),
            ViewTable(TENSOR_HEAD, [tensor_cells(x) for x in self.tensors], frozenset({0, 1})),
            Remarks([*kept, *self.statements, *self.notes]),
        )


LAYER_HEAD = ("layer", "operator", "alone", "without it", "gain in float", "own output", "a better scale gains")
TENSOR_HEAD = ("tensor", "kind", "SQNR", "clipped", "levels", "a better scale gains")


def layer_cells(layer: LayerError) -> tuple[str, ...]:
    """Return the figures of a layer as text, with what a better scale would gain if one of its scales does not fit."""
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
    """Return the figures of a tensor as text."""
    return (
        tensor.name,
        "weight" if tensor.weight else "activation",
        format_db(tensor.sqnr_db),
        f"{tensor.clipped:.2%}",
        str(tensor.levels),
        format_db(tensor.misfit_db) if tensor.misfit else "",
    )


def sensitivity_document(result: Sensitivity) -> dict[str, Any]:
    """Return the result as JSON values: decibels, null where there is no noise."""
    return {
        "model": result.model,
        "scales_from": result.source,
        "all_db": result.all_db,
        "samples": result.samples,
        "layers": [{**asdict(layer), "misfit": layer.misfit} for layer in result.layers],
        "tensors": [{**asdict(tensor), "misfit": tensor.misfit} for tensor in result.tensors],
        "kept": list(result.kept),
        "kept_db": result.kept_db,
        "notes": list(result.notes),
        "warnings": list(result.warnings),
        "doubts": list(result.doubts),
        "provenance": dict(result.provenance),
        "seconds": round(result.seconds, 3),
    }
