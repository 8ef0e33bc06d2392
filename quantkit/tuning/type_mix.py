"""INT8 or FP8 layer by layer: what each layer's quantization costs in either type, and the mixes that follow.

A layer is a candidate for FP8 if its noise alone is less there than in INT8 by a standard error of the difference. The
noises of layers alone add up to nearly that of all, so that the layers that save most come first, and few mixes are
left: all candidates, and the fewest that save most of it. They are chosen on half of the samples; a mix has to be
better than the network in INT8 by two standard errors on the other half. A layer is an operator with weights, with the
Adds that take its type.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quantkit.graph.index import index_graph
from quantkit.graph.operators import WEIGHTED
from quantkit.output_noise import NoiseMeter, OutputNoise
from quantkit.qdq.partial import PartialQuantization
from quantkit.qdq.patterns.residual_adds import leader_of_add
from quantkit.quantization.choice_record import Gain
from quantkit.quantization.held_out import FLOOR, MeasuredNoise, gain_over
from quantkit.sensitivity.layer_ranking import partial_candidate
from quantkit.values import QuantizedType

if TYPE_CHECKING:
    import onnx

    from quantkit.graph import Model

ENOUGH = 0.9
"""Share of the noise that all candidates save, from which on fewer of them will do."""
LIKELY = 1.0
"""Standard errors by which a layer has to be better in FP8 to be a candidate; what decides is the mix as a whole."""


@dataclass(frozen=True, slots=True)
class LayerTypes:
    """A layer in both types.

    int8_db, fp8_db: SQNR of the outputs with this layer alone quantized. gain: of FP8 over INT8, on the half of the
    samples that the choice is made by. saved: noise-to-signal ratio that FP8 saves there.
    """

    node: str
    operator: str
    int8_db: float
    fp8_db: float
    gain: Gain
    saved: float

    @property
    def is_candidate(self) -> bool:
        """True if FP8 probably leaves less noise."""
        return self.saved > 0.0 and self.gain.clear(LIKELY)

    @property
    def document(self) -> dict[str, Any]:
        """The layer for programs."""
        return {
            "node": self.node,
            "operator": self.operator,
            "int8_db": self.int8_db,
            "fp8_db": self.fp8_db,
            "gain_db": self.gain.db,
            "error_db": self.gain.error,
            "candidate": self.is_candidate,
        }


def measure_layer_types(
    meter: NoiseMeter,
    plain: Model,
    networks: Mapping[QuantizedType, Model],
    leaders: Mapping[str, str],
    count: Callable[[int, int | None], None],
) -> tuple[LayerTypes, ...]:
    """Measure every layer that both networks quantize, in one pass. ModelError, DataError.

    plain: the float network, whose biases the other layers have. leaders: Add → the operator whose type it takes.
    """
    variants = {kind: PartialQuantization(network, plain) for kind, network in networks.items()}
    layers = {kind: {layer.node: layer for layer in each.layers} for kind, each in variants.items()}
    int8 = layers[QuantizedType.INT8]
    shared = [node for node in int8 if int8[node].operator in WEIGHTED and node in layers[QuantizedType.FP8]]
    together = {node: [node, *(add for add, leader in leaders.items() if leader == node)] for node in shared}
    found = meter.noise(
        {
            f"{kind.value} {node}": partial_candidate(variants[kind], [n for n in together[node] if n in layers[kind]])
            for kind in networks
            for node in shared
        },
        count,
    )
    return tuple(
        compare_types(node, int8[node].operator, *(found[f"{kind.value} {node}"] for kind in QuantizedType))
        for node in shared
    )


def compare_types(node: str, operator: str, int8: OutputNoise, fp8: OutputNoise) -> LayerTypes:
    """Return the figures of a layer from its noise in both types."""
    seen = [MeasuredNoise(noise.energies).half(second=False) for noise in (int8, fp8)]
    outputs = heard_outputs(seen)
    saved = sum(seen[0].share(name) - seen[1].share(name) for name in outputs) / max(len(outputs), 1)
    return LayerTypes(node, operator, int8.db, fp8.db, gain_over(seen[1], seen[0], outputs), saved)


def heard_outputs(noises: Sequence[MeasuredNoise]) -> tuple[str, ...]:
    """Return the outputs that have a signal, and in which one of the networks is not exact."""
    names = noises[0].energies if noises else ()
    heard = [name for name in names if all(math.isfinite(noise.share(name)) for noise in noises)]
    return tuple(name for name in heard if any(noise.share(name) > FLOOR for noise in noises))


def gain_on_the_other_half(better: MeasuredNoise, worse: MeasuredNoise) -> Gain:
    """Return what one network gains over another on the half of the samples that no layer's type was chosen by."""
    halves = (better.half(second=True), worse.half(second=True))
    return gain_over(*halves, heard_outputs(halves))


def mixes_of(figures: Sequence[LayerTypes]) -> tuple[tuple[str, ...], ...]:
    """Return the layers in FP8 of each mix that is worth a trial, fewest first; nothing without candidates."""
    likely = sorted((layer for layer in figures if layer.is_candidate), key=lambda layer: -layer.saved)
    nodes = tuple(layer.node for layer in likely)
    total, sums = sum(layer.saved for layer in likely), 0.0
    for number, layer in enumerate(likely, 1):
        sums += layer.saved
        if sums >= ENOUGH * total:
            return (nodes,) if number == len(nodes) else (nodes[:number], nodes)
    return ()


def leaders_of_adds(proto: onnx.ModelProto, quantized: Collection[str]) -> dict[str, str]:
    """Return Add → the operator whose type it takes. quantized: names of the operators that read behind pairs."""
    wires = index_graph(proto)
    weighted = {
        number: (0, 1)
        for number, node in enumerate(wires.nodes)
        if node.op_type in WEIGHTED and wires.name(number) in quantized
    }
    found = {}
    for number, node in enumerate(wires.nodes):
        if node.op_type == "Add" and (leader := leader_of_add(wires, number, weighted)) is not None:
            found[wires.name(number)] = wires.name(leader)
    return found
