"""Layers ranked by what their quantization costs: each quantized alone, each left out, worst first.

    alone     only this layer is quantized        its own noise; these add up to nearly the noise of all layers together
    without   all layers but this one             what keeping it float gains
    local     its own output for exact inputs     how well its scales and weights fit, wherever it is in the network

The noise of a layer alone shows where the loss comes from, and other layers cannot hide it (two layers that read the
same badly scaled tensor each gain nothing when left out). But networks tolerate a lot of noise in some places, where a
bad scale is still a defect. So layers whose scales do not fit (`MISFIT` dB better with other scales) come first, and
the rest are ordered by their noise alone.

Source: one layer at a time, as in common accuracy debuggers (Nagel et al. 2021, arXiv 2106.08295, §3.8).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quantkit.errors import UsageError
from quantkit.numerics import format_db, noise_share
from quantkit.output_noise import NoiseCandidate, NoiseMeter, OutputNoise
from quantkit.qdq.partial import PartialQuantization, QuantizedLayer
from quantkit.sensitivity.result import LayerError, TensorError

ALL, NONE = "all layers", "no layer"


@dataclass(frozen=True, slots=True)
class LayerRanking:
    """Layers, worst first, with those that stay float last.

    all_db: SQNR of the outputs with all layers quantized. none_db: with no layer quantized; it shows what else
    distinguishes the quantized network from the reference.
    """

    layers: tuple[LayerError, ...]
    all_db: float
    none_db: float

    @property
    def nodes(self) -> tuple[str, ...]:
        """Nodes of the quantized layers, worst first."""
        return tuple(layer.node for layer in self.layers if not layer.kept)


def ranking_candidates(variants: PartialQuantization) -> dict[str, NoiseCandidate]:
    """Return the variants that rank the layers: two for every layer, and two of the whole network."""
    names = [layer.node for layer in variants.layers]
    candidates = {ALL: partial_candidate(variants, names), NONE: partial_candidate(variants, ())}
    for name in names:
        candidates[f"alone {name}"] = partial_candidate(variants, [name], compared=name)
        candidates[f"without {name}"] = partial_candidate(variants, [other for other in names if other != name])
    return candidates


def rank_layers(
    found: Mapping[str, OutputNoise],
    variants: PartialQuantization,
    tensors: Mapping[tuple[str, str], TensorError],
    left: Mapping[str, str],
) -> LayerRanking:
    """Rank the layers by the noise of their `ranking_candidates`.

    tensors: (tensor, node) → error, as `tensor_errors` computes it. left: node → why it stays float.
    """
    names = [layer.node for layer in variants.layers]
    everything = found[ALL]
    total = sum(found[f"alone {name}"].outputs for name in names)
    layers = [
        layer_error(
            layer,
            (found[f"alone {layer.node}"], found[f"without {layer.node}"], everything),
            total,
            largest_misfit(layer, tensors),
        )
        for layer in variants.layers
    ]
    layers.sort(key=ranking_key)
    return LayerRanking(
        (*layers, *(float_layer_error(node, why, everything.db) for node, why in left.items())),
        everything.db,
        found[NONE].db,
    )


def partial_candidate(variants: PartialQuantization, names: Sequence[str], compared: str = "") -> NoiseCandidate:
    """Return the network with only these layers quantized, as a candidate.

    compared: a layer whose own output is compared with its exact value as well; "" for none.
    """
    return NoiseCandidate(
        lambda: variants.with_layers(names, compared), variants.output_pair(compared) if compared else None
    )


def layer_error(
    layer: QuantizedLayer, noises: tuple[OutputNoise, OutputNoise, OutputNoise], total: float, misfit: float
) -> LayerError:
    """Return the figures of a layer. noises: of it alone, without it, of all. total: sum over all layers alone."""
    alone, without, everything = noises
    return LayerError(
        node=layer.node,
        operator=layer.operator,
        alone_db=alone.db,
        without_db=without.db,
        gain_db=without.db - everything.db if without.db != everything.db else 0.0,
        share=1.0 if math.isinf(alone.outputs) else noise_share(alone.outputs, total),
        local_db=alone.local_db,
        parameters=layer.parameters,
        misfit_db=misfit,
        type=layer.type,
    )


def float_layer_error(node: str, why: str, all_db: float) -> LayerError:
    """Return the entry of a layer that is not quantized."""
    return LayerError(node, "", math.inf, all_db, 0.0, 0.0, math.inf, 0, why)


def largest_misfit(layer: QuantizedLayer, tensors: Mapping[tuple[str, str], TensorError]) -> float:
    """Return the most that a better scale would gain in one of the tensors that a layer reads."""
    activations = set(layer.tensors)
    found = [e for e in tensors.values() if (e.node == layer.node if e.weight else e.name in activations)]
    return max((error.misfit_db for error in found), default=0.0)


def ranking_key(layer: LayerError) -> tuple[bool, float]:
    """Return the sorting key of a layer, worst first; ties keep the order of the graph."""
    return not layer.misfit, layer.alone_db


def choose_kept_layers(
    measuring: NoiseMeter, variants: PartialQuantization, found: LayerRanking, count: int | None, least_db: float | None
) -> tuple[tuple[str, ...], float]:
    """Return the first `count` layers of the ranking, or as many as lift the outputs to `least_db`, and the SQNR then.

    Assumes that keeping more layers never hurts, so that bisection finds their number with few evaluations. Layers
    that the float network does not have by that name are skipped. UsageError if the SQNR is not reached even with all
    others in float.
    """
    known = {layer.node for layer in variants.layers if layer.matched}
    nodes = tuple(node for node in found.nodes if node in known)

    def measured(number: int) -> float:
        kept = set(nodes[:number])
        names = [layer.node for layer in variants.layers if layer.node not in kept]
        return measuring.noise({"": partial_candidate(variants, names)})[""].db

    if least_db is None:
        number = min(count or 0, len(nodes))
        return nodes[:number], measured(number)
    reached = {0: found.all_db, len(nodes): found.none_db if len(nodes) == len(found.nodes) else measured(len(nodes))}
    if reached[len(nodes)] < least_db:
        raise UsageError(
            f"the outputs reach only {format_db(reached[len(nodes)])} with all layers in float, not {least_db:g} dB",
            remedy="ask for less, or give the float network of this Q/DQ model",
        )
    low, high = (0, 0) if found.all_db >= least_db else (0, len(nodes))
    while high - low > 1:
        middle = (low + high) // 2
        reached[middle] = measured(middle)
        low, high = (low, middle) if reached[middle] >= least_db else (middle, high)
    return nodes[:high], reached[high]
