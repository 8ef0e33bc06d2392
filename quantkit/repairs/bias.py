"""Bias correction: weights that were rounded shift the mean of what they compute; the bias takes the shift back.

With x of mean E[x_c] per input channel, rounding W to Ŵ adds on average

    E[Δy_o] = Σ_c Σ_k (Ŵ − W)[o, c, k] · E[x_c] · p_k

to output channel o, and the bias loses it. p_k is the share of output positions at which tap k reads the input rather
than padding; it is 1 where the input's size is not known (nearly right: padding is a thin border). The mean of x is
that of all positions, so that borders that differ from the middle are an approximation.

Source: Nagel et al. 2019 (arXiv 1906.04721) §4.2, with measured means instead of those of batch normalization.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from quantkit.errors import UsageError
from quantkit.graph.model import Model
from quantkit.numerics import LEVELS
from quantkit.repairs.editing import Editor
from quantkit.repairs.figures import ChannelFigures, decibels
from quantkit.repairs.grams import same_pads
from quantkit.repairs.layers import Geometry, Layer, layers_of
from quantkit.repairs.linking import Shape, shapes
from quantkit.repairs.operators import attribute

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from quantkit.values import Array


@dataclass(frozen=True, slots=True)
class Corrected:
    """A network with corrected biases. shifts: node → what was added to its bias [O]; gains: node → how much smaller the
    error of its weights becomes by that, predicted, in dB; skipped: node → why it stays as it is.
    """

    proto: onnx.ModelProto
    shifts: Mapping[str, Array]
    gains: Mapping[str, float]
    skipped: Mapping[str, str]


def corrected(
    model: Model,
    channels: Mapping[str, ChannelFigures],
    reference: Model | None = None,
    exclude: Collection[str] = (),
) -> Corrected:
    """Correct the biases of `model` for the rounding of its weights to their grids max|w|/127.

    channels: tensor → figures; of these only means and squares are looked at. reference: the network before its weights
    were changed, for example by adaptive rounding; nodes are matched by name. exclude: nodes that stay float.
    ModelError where a weight is not finite, UsageError where the reference is another network.
    """
    editor = Editor(model)
    sizes = shapes(inferred_graph(editor))
    origin = Editor(reference) if reference is not None else None
    skipped: dict[str, str] = {}
    before = {layer.name: layer for layer in layers_of(origin, {})} if origin else {}
    shifts: dict[str, Array] = {}
    gains: dict[str, float] = {}
    for layer in list(layers_of(editor, skipped)):
        figures = channels.get(layer.tensor)
        place = bias_of(editor, layer)
        reason = obstacle(layer, figures, exclude) or (place if isinstance(place, str) else None)
        if reason or figures is None or isinstance(place, str):
            skipped[layer.name] = reason or ""
            continue
        error = error_of(editor, layer, origin, before)
        means, squares = spread_means(layer, figures, sizes.get(layer.tensor, ()))
        shift = -np.einsum("grk,gk->gr", error, means).reshape(-1)
        gains[layer.name] = gain_of(error, means, squares, shift)
        shifts[layer.name] = add_to_bias(editor, layer, place, shift)
    return Corrected(editor.finished(), shifts, gains, skipped)
