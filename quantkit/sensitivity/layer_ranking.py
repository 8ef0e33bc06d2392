"""Layers by what their quantization costs: each alone, each left out, worst first.

    alone     only this layer is quantized        noise of its own; the noises of all add up to nearly that of all
    without   all but this one are                what keeping it float gives back
    local     its own output, from exact inputs   how well its scales and weights stand, wherever it lies

Noise alone says where the loss comes from, and is not hidden by what others do (two layers that read one tensor behind
one bad scale each gain nothing when left out). But a network forgives much in some places, and a broken scale there is
broken all the same. So layers come first whose scales do not fit (`MISFIT` dB better with others), the rest by noise
alone.

Source: one layer at a time as in the accuracy debuggers of the field (Nagel et al. 2021, arXiv 2106.08295, §3.8).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from quantkit.errors import UsageError
from quantkit.numerics import format_db, noise_share
from quantkit.output_noise import NoiseCandidate, NoiseMeter, OutputNoise
from quantkit.qdq.partial import PartialQuantization, QuantizedLayer
from quantkit.sensitivity.result import LayerError, TensorError

ALL, NONE = "all layers", "no layer"


@dataclass(frozen=True, slots=True)
class LayerRanking:
    """Layers, worst first, those that stay float last. all_db: SQNR of the outputs with all of them quantized; none_db:
    with none, which is what else distinguishes the quantized network from the reference."""

    layers: tuple[LayerError, ...]
    all_db: float
    none_db: float

    @property
    def nodes(self) -> tuple[str, ...]:
        """Nodes of the layers that are quantized, worst first."""
        return tuple(layer.node for layer in self.layers if not layer.kept)


def rank_layers(
    measuring: NoiseMeter,
    variants: PartialQuantization,
    tensors: Mapping[tuple[str, str], TensorError],
    left: Mapping[str, str],
    phase: Callable[[str], None] = lambda _: None,
) -> LayerRanking:
    """Measure every layer. tensors: (tensor, node) → error, as `tensor_errors` has them; left: node → why it stays
    float. Two evaluations a layer, and one of all together. DataError, ModelError."""
    names = [layer.node for layer in variants.layers]
    candidates = {ALL: partial_candidate(variants, names), NONE: partial_candidate(variants, ())}
    for name in names:
        candidates[f"alone {name}"] = partial_candidate(variants, [name], twin=name)
        candidates[f"without {name}"] = partial_candidate(variants, [other for other in names if other != name])
    found = measuring.noise(candidates, lambda done, of: phase(f"layers: {done} of {of} evaluations"))
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


def partial_candidate(variants: PartialQuantization, names: Sequence[str], twin: str = "") -> NoiseCandidate:
    """The network with those layers quantized, as a candidate; with a twin, its output is compared as well."""
    return NoiseCandidate(lambda: variants.quantizing(names, twin), variants.twins(twin) if twin else None)


def layer_error(
    layer: QuantizedLayer, noises: tuple[OutputNoise, OutputNoise, OutputNoise], total: float, misfit: float
) -> LayerError:
    """A layer's figures. noises: of it alone, without it, of all; total: the sum of all alone."""
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
    )


def float_layer_error(node: str, why: str, all_db: float) -> LayerError:
    """A layer that is not quantized."""
    return LayerError(node, "", math.inf, all_db, 0.0, 0.0, math.inf, 0, why)


def largest_misfit(layer: QuantizedLayer, tensors: Mapping[tuple[str, str], TensorError]) -> float:
    """The most that a better scale would gain in what a layer reads."""
    activations = set(layer.tensors)
    found = [e for e in tensors.values() if (e.node == layer.node if e.weight else e.name in activations)]
    return max((error.misfit_db for error in found), default=0.0)


def ranking_key(layer: LayerError) -> tuple[bool, float]:
    """Worst first; ties stay in graph order."""
    return not layer.misfit, layer.alone_db


def choose_kept_layers(
    measuring: NoiseMeter, variants: PartialQuantization, found: LayerRanking, count: int | None, least_db: float | None
) -> tuple[tuple[str, ...], float]:
    """The first `count` layers of the ranking, or as many as lift the outputs to `least_db`, and the SQNR then.

    More layers kept is taken to be better, so that few evaluations find how many. Layers that the float network does
    not have by that name are left out. UsageError where the SQNR is not reached with all of the others in float.
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
            f"with all layers in float the outputs are at {format_db(reached[len(nodes)])}; {least_db:g} dB are asked for",
            remedy="ask for less, or give the float network of this Q/DQ model",
        )
    low, high = (0, 0) if found.all_db >= least_db else (0, len(nodes))
    while high - low > 1:
        middle = (low + high) // 2
        reached[middle] = measured(middle)
        low, high = (low, middle) if reached[middle] >= least_db else (middle, high)
    return nodes[:high], reached[high]
