"""Facts of cards: figures of output and weights, where a card runs, and why it is float."""

from __future__ import annotations

from dataclasses import dataclass, replace

from quantkit.graph.model import Model
from quantkit.graph.operators import ACTIVATIONS, ARITHMETIC, COMMUTING, QDQ_DOMAINS, WEIGHTED
from quantkit.mapping.kernels import KernelFacts
from quantkit.mapping.operator_graph import Card, CardKind, OperatorGraph
from quantkit.mapping.sources import MapSources
from quantkit.numerics import scale_of
from quantkit.qdq.grid import Grid, read_grid
from quantkit.qdq.layer_counts import fp8_tensors, operator_types
from quantkit.qdq.reader import QUANTIZE, is_dequantized, moved_tensors, read_qdq
from quantkit.qdq.weighted_operators import unreachable_operators
from quantkit.quantization.scales import rule_threshold
from quantkit.sensitivity.tensor_errors import QuantizedActivation, estimate_activation_error
from quantkit.values import QuantizedType

FUSED = ACTIVATIONS | ARITHMETIC | {"BatchNormalization"}
"""Operators that TensorRT computes in the kernel of the INT8 operator before them."""

NO_KERNEL = "no kernel"
"""Precision of an operator that no kernel of an engine or a compiled network names: often it was removed."""


@dataclass(frozen=True, slots=True)
class CardFacts:
    """The facts of a card; None and "" for those that no source gives.

    tensor: its first output. scale: of that tensor; of several, the largest. weight_scales: least, largest, and number.
    amax: largest |x| in the statistics. sqnr_db, clipped, levels: of the tensor, from `layers`, or estimated from its
    histogram. alone_db, gain_db: of the layer, as in `layers`. precision_from: the source of `precision`.
    """

    tensor: str = ""
    type: str = ""
    shape: tuple[int | None, ...] | None = None
    scale: float | None = None
    weight_scales: tuple[float, float, int] | None = None
    amax: float | None = None
    sqnr_db: float | None = None
    clipped: float | None = None
    levels: int | None = None
    estimated: bool = False
    weight_sqnr_db: float | None = None
    alone_db: float | None = None
    gain_db: float | None = None
    precision: str = ""
    precision_from: str = ""
    kernel: str = ""
    kernel_kind: str = ""
    kernel_types: str = ""
    kernel_nodes: int = 0
    kernel_bytes: int | None = None
    milliseconds: float | None = None
    reason: str = ""


def card_facts(model: Model, graph: OperatorGraph, sources: MapSources) -> tuple[CardFacts, ...]:
    """Return the facts of every card."""
    collector = FactCollector(model, graph, sources)
    return tuple(collector.facts(card) for card in graph.cards)


class FactCollector:
    """Looks up the facts of cards in the model and in the other sources."""

    def __init__(self, model: Model, graph: OperatorGraph, sources: MapSources) -> None:
        self._model, self._graph, self._sources = model, graph, sources
        self._qdq = read_qdq(model, QDQ_DOMAINS)
        self._quantized = bool(self._qdq.qdq_nodes)
        self._unreachable = {name: str(reason) for name, reason in unreachable_operators(model.proto).items()}
        self._kernels = sources.kernels
        self._int8: set[int] = set()
        self._type_of, self._in_fp8 = operator_types(model), fp8_tensors(model)
        self._fused: set[int] = set()

    def facts(self, card: Card) -> CardFacts:
        """Return the facts of a card."""
        found = self._tensor_facts(card)
        if card.kind is not CardKind.OPERATOR or card.number is None:
            return found
        found = replace(found, weight_scales=self._weight_scales(card))
        found = self._precision_by_qdq(card, found)
        kernel = self._kernel(card)
        if kernel is not None:
            found = with_kernel(found, kernel)
        elif self._kernels:
            source = next(iter(self._kernels.values())).source
            found = replace(found, precision=NO_KERNEL, precision_from=source)
        return self._with_layer(card, found)

    def _tensor_facts(self, card: Card) -> CardFacts:
        if not card.writes:
            return CardFacts()
        tensor = card.writes[0]
        grid = self._grid(tensor)
        own = CardFacts(tensor, self._qdq.types.get(tensor, ""), self._qdq.shapes.get(tensor))
        if grid is not None and grid.scale is not None and grid.scale.size:
            own = replace(own, scale=float(grid.scale.max()))
        return self._with_statistics(card, own, grid)

    def _grid(self, tensor: str) -> Grid | None:
        """Return the grid of a tensor: that of its QuantizeLinear, or by the rule where the network has no Q/DQ."""
        import numpy as np

        quantizers = self._qdq.quantizers_of(tensor)
        if quantizers:
            return read_grid(quantizers[0], self._qdq)
        statistics = self._sources.statistics
        histogram = statistics.histograms.get(tensor) if statistics is not None and not self._quantized else None
        if histogram is None or self._sources.rule is None:
            return None
        scale = np.array(scale_of(rule_threshold(self._sources.rule, histogram)[0]), np.float32)
        return Grid("int8", scale, np.zeros((), np.int64), 0, 0, ("", ""))

    def _with_statistics(self, card: Card, found: CardFacts, grid: Grid | None) -> CardFacts:
        measured = self._sources.tensor_errors.get(found.tensor)
        statistics = self._sources.statistics
        histogram = statistics.histograms.get(found.tensor) if statistics is not None else None
        if histogram is not None:
            found = replace(found, amax=histogram.amax)
            usable = grid is not None and not isinstance(scale := grid.scale_for_a_table(), str) and scale > 0.0
            if usable and measured is None:
                assert grid is not None
                error = estimate_activation_error(QuantizedActivation(found.tensor, card.name, grid, ""), histogram)
                return replace(found, sqnr_db=error.sqnr_db, clipped=error.clipped, levels=error.levels, estimated=True)
        if measured is not None:
            found = replace(
                found, sqnr_db=measured.sqnr_db, clipped=measured.clipped, levels=measured.levels,
                estimated=measured.estimated, scale=found.scale if found.scale is not None else measured.scale,
            )  # fmt: skip
        return found

    def _weight_scales(self, card: Card) -> tuple[float, float, int] | None:
        node = self._graph.wiring.nodes[card.number or 0]
        for name in node.input[1:] if node.op_type in WEIGHTED else ():
            read = self._qdq.qdq_nodes.get(name)
            if read is not None and name not in card.reads and read.scale is not None and read.scale.size:
                return float(read.scale.min()), float(read.scale.max()), int(read.scale.size)
        return None

    def _precision_by_qdq(self, card: Card, found: CardFacts) -> CardFacts:
        """Add the precision that Q/DQ asks for, and why an operator with weights is float."""
        node, wiring = self._graph.wiring.nodes[card.number or 0], self._graph.wiring
        plain = "FP16" if found.type == "float16" else "float"
        if not self._quantized:
            return replace(found, precision=plain, precision_from="no Q/DQ")
        weighted = node.op_type in WEIGHTED
        asked = [name for name in (node.input[:2] if weighted else card.reads) if name]
        lacking = [name for name in asked if not is_dequantized(wiring, name)]
        integer = asked and not lacking and (weighted or found.scale is not None or node.op_type in COMMUTING)
        if integer or (node.op_type in COMMUTING and self._is_quantized_behind(card)):
            self._int8.add(card.number or 0)
            in_fp8 = weighted and self._type_of(node) is QuantizedType.FP8
            return replace(found, precision="FP8" if in_fp8 or self._is_fp8(card) else "INT8", precision_from="Q/DQ")
        if not weighted:
            makers = {wiring.makers.get(name) for name in card.reads}
            if node.op_type in FUSED and makers & (self._int8 | self._fused):
                self._fused.add(card.number or 0)
                return replace(found, precision="fused", precision_from="Q/DQ")
            return replace(found, precision=plain, precision_from="Q/DQ")
        why = self._unreachable.get(card.name) or f"no Q/DQ pair before its input: {lacking[0]}"
        return replace(found, precision=plain, precision_from="Q/DQ", reason=why)

    def _is_fp8(self, card: Card) -> bool:
        """Return whether what a card without weights reads is FP8, or what becomes of the values that it moves."""
        wiring = self._graph.wiring
        if any(name in self._in_fp8 for read in card.reads for name in moved_tensors(wiring, read)):
            return True
        behind = [node for name in card.writes for _, node in wiring.uses_through(name) if node.op_type == QUANTIZE]
        made = [end for node in behind for _, end in wiring.uses(node.output[0])]
        return bool(made) and all(end.output[0] in self._in_fp8 for end in made)

    def _is_quantized_behind(self, card: Card) -> bool:
        """Return whether all that reads what a card moves is a QuantizeLinear, which TensorRT moves ahead of it."""
        wiring = self._graph.wiring
        uses = [node for name in card.writes for _, node in wiring.uses_through(name)]
        return bool(uses) and all(node.op_type == QUANTIZE for node in uses) and not wiring.outputs & set(card.writes)

    def _kernel(self, card: Card) -> KernelFacts | None:
        names = (card.name, self._model.file_names.get(card.name, card.name), *card.writes[:1])
        return next((self._kernels[name] for name in names if name in self._kernels), None)

    def _with_layer(self, card: Card, found: CardFacts) -> CardFacts:
        layer = self._sources.layers.get(card.name)
        weight = self._sources.weight_errors.get(card.name)
        if weight is not None:
            found = replace(found, weight_sqnr_db=weight.sqnr_db)
        if layer is None:
            return found
        reason = found.reason or layer.kept
        return replace(found, alone_db=layer.alone_db, gain_db=layer.gain_db, reason=reason)


def with_kernel(found: CardFacts, kernel: KernelFacts) -> CardFacts:
    """Return facts with those of the kernel that computes a card, which say more than Q/DQ does."""
    runs_int8 = kernel.precision in ("INT8", "FP8")
    return replace(
        found,
        precision=kernel.precision or found.precision,
        precision_from=kernel.source if kernel.precision else found.precision_from,
        kernel=kernel.name,
        kernel_kind=kernel.kind,
        kernel_types=kernel.types,
        kernel_nodes=kernel.nodes,
        kernel_bytes=kernel.bytes,
        milliseconds=kernel.milliseconds,
        reason="" if runs_int8 else kernel.reason or found.reason,
    )
