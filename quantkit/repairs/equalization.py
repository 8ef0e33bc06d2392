"""Cross-layer equalization: the channels of an activation use the same range, and the weights around make up for it.

A per-tensor scale gives every channel the step of the widest one. Here channels of a whole group of tensors (`linking`)
are divided by factors s_c, about max|x_c|^α, and the weights at its ends make up for it: in float nothing changes, and
every channel gets a step of its own. The weights pay, their rows become uneven; how far to go is chosen group by group
by the error that is predicted (`scaling`).

Source: Nagel et al. 2019 (arXiv 1906.04721) §4.1, where the ranges of weights are equalized; with weights per channel
and activations per tensor, as TensorRT has them, it is the activations that need it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantkit.graph.model import Model
from quantkit.repairs.editing import Editor
from quantkit.repairs.figures import ChannelFigures
from quantkit.repairs.linking import Network
from quantkit.repairs.scaling import Ways, scale_groups

if TYPE_CHECKING:
    import onnx

    from quantkit.values import Array


@dataclass(frozen=True, slots=True)
class Equalized:
    """The same function with flatter activations. factors: first tensor of a group → factors [C] that it was divided
    by; gains: the predicted gain of that group's readers in dB; skipped: tensor → why its group stays as it is.
    """

    proto: onnx.ModelProto
    factors: Mapping[str, Array]
    gains: Mapping[str, float]
    skipped: Mapping[str, str]


def equalized(
    model: Model, channels: Mapping[str, ChannelFigures], *, exact: bool = False, adaptive: bool = True
) -> Equalized:
    """Scale the channels of the tensors in `channels` (inputs of weighted operators that will be quantized).

    exact: factors are powers of two, and the float network keeps every bit; otherwise it keeps its function up to
    float32 rounding, and gains about 0.5 dB more. adaptive: weights are going to be rounded adaptively, so that they
    can carry more. ModelError where a weight is not finite.
    """
    editor = Editor(model)
    done = scale_groups(Network(editor), channels, Ways(exact, adaptive))
    return Equalized(editor.finished(), done.factors, done.gains, done.skipped)
