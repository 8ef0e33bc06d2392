"""SmoothQuant: even channels between a LayerNormalization and the matrix products that read it.

A few channels of a transformer's normalized activations are far wider than the others. They are divided by
s_j = max|X_j|^α / max|W_j|^(1−α): in the scale and bias of the LayerNormalization that makes them, or in the constant
of the last Mul where it is decomposed (that of a decomposed GELU as well); the rows of the weights are multiplied. All
readers of such a tensor have to be matrix products, or pass the factors on (`linking`).

α is chosen per group by predicted error (`scaling`) unless it is given.

Source: Xiao et al. 2022, "SmoothQuant" (arXiv 2211.10438) §4, eq. 4.
"""

from __future__ import annotations

from collections.abc import Mapping

from quantkit.errors import UsageError
from quantkit.graph.model import Model
from quantkit.graph.operators import FACTOR_ABSORBING, FACTOR_PASSING
from quantkit.repairs.editing import WeightEditor
from quantkit.repairs.figures import ChannelFigures
from quantkit.repairs.linking import Network
from quantkit.repairs.repair import Needs, Repair, RepairInput, RepairOutcome
from quantkit.repairs.scaling import ALPHAS, FactorSearch, scale_groups

BETWEEN = FACTOR_PASSING | {"Add", "Cast"}
"""Operators that may lie between; an Add only where it adds a bias."""


def smooth_channels(
    model: Model, channels: Mapping[str, ChannelFigures], *, alpha: float | None = None, adaptive: bool = True
) -> RepairOutcome:
    """Smooth the tensors in `channels` that a LayerNormalization or a Mul by a constant makes.

    alpha: 0 … 1, the same for all, 0.5 in the paper; None chooses. adaptive: weights will be rounded adaptively, so
    that they can carry more. The outcome's gains are predicted, by the first tensor of each group. UsageError where
    alpha is out of range, ModelError where a weight is not finite.
    """
    if alpha is not None and not 0.0 <= alpha <= 1.0:
        raise UsageError(f"alpha {alpha} is not in 0 … 1", remedy="give for example 0.5, or none to choose it")
    editor = WeightEditor(model)
    network = Network(editor, FACTOR_ABSORBING)
    ways = (
        FactorSearch(False, adaptive, ALPHAS, False) if alpha is None else FactorSearch(False, adaptive, (alpha,), True)
    )
    wanted = {name: figures for name, figures in channels.items() if has_absorbing_maker(network, name)}
    done = scale_groups(network, wanted, ways)
    return RepairOutcome(editor.finished(), done.gains, done.skipped, done.factors, done.tensors)


def has_absorbing_maker(network: Network, name: str) -> bool:
    """Return True if an operator that takes factors makes the tensor; a bias, a reshape or a mean may lie between."""
    while (number := network.index.makers.get(name)) is not None:
        node = network.nodes[number]
        if node.op_type in FACTOR_ABSORBING:
            return node.op_type != "Mul" or any(network.editor.constant(k) for k in node.input)
        variable = [k for k in node.input if not network.editor.constant(k)]
        if node.op_type not in BETWEEN or (node.op_type == "Add" and len(variable) != 1):
            return False
        name = node.input[0] if node.op_type != "Add" else variable[0]
    return False


def repair_by_smoothing(given: RepairInput) -> RepairOutcome:
    """Smooth the activations that will be quantized."""
    return smooth_channels(given.network, given.quantized_channels, adaptive=given.rounds_weights)


SMOOTH = Repair(
    "smooth",
    Needs.DATA,
    summary="the same behind LayerNormalization",
    unit="groups of channels scaled",
    basis="predicted",
    apply=repair_by_smoothing,
    rescales=True,
    int8_only="its factors are chosen for the equal steps of INT8, and those of FP8 are relative",
)
