"""Cross-layer equalization: the channels of an activation use the same range, and the weights around make up for it.

A per-tensor scale gives every channel the step of the widest one. Here the channels of a whole group of tensors
(`linking`) are divided by factors s_c, about max|x_c|^α, and the weights at its ends compensate: in float nothing
changes, and every channel gets a step of its own. The cost is that rows of weights become uneven; the best compromise
is chosen for each group by predicted error (`scaling`).

Source: Nagel et al. 2019 (arXiv 1906.04721) §4.1, where the ranges of weights are equalized; with weights per channel
and activations per tensor, as TensorRT has them, it is the activations that need it.
"""

from __future__ import annotations

from collections.abc import Mapping

from quantkit.graph.model import Model
from quantkit.repairs.editing import WeightEditor
from quantkit.repairs.figures import ChannelFigures
from quantkit.repairs.linking import Network
from quantkit.repairs.repair import Needs, Repair, RepairInput, RepairOutcome
from quantkit.repairs.scaling import FactorSearch, scale_groups


def equalize_channels(
    model: Model, channels: Mapping[str, ChannelFigures], *, exact: bool = False, adaptive: bool = True
) -> RepairOutcome:
    """Scale the channels of the tensors in `channels` (inputs of weighted operators that will be quantized).

    exact: factors are powers of two, and the float network keeps every bit; otherwise it keeps its function up to
    float32 rounding, and gains about 0.5 dB more. adaptive: weights will be rounded adaptively, so that they can carry
    more. The outcome's gains are predicted, by the first tensor of each group. ModelError where a weight is not finite.
    """
    editor = WeightEditor(model)
    done = scale_groups(Network(editor), channels, FactorSearch(exact, adaptive))
    return RepairOutcome(editor.finished(), done.gains, done.skipped, done.factors, done.tensors)


def repair_by_equalization(given: RepairInput) -> RepairOutcome:
    """Equalize the activations that will be quantized."""
    return equalize_channels(given.network, given.quantized_channels, adaptive=given.rounds_weights)


EQUALIZE = Repair(
    "equalize",
    Needs.DATA,
    summary="channels of an activation get the same range, the weights around it make up for it",
    unit="groups of channels scaled",
    basis="predicted",
    apply=repair_by_equalization,
    rescales=True,
    int8_only="its factors are chosen for the equal steps of INT8, and those of FP8 are relative",
)
