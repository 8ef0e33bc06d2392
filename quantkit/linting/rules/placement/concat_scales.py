"""concat-scales: inputs of a Concat with unequal scales."""

from __future__ import annotations

from collections.abc import Iterator

from quantkit.graph.model import node_name
from quantkit.linting.equal_pairs import scale_key, scale_range_text
from quantkit.linting.finding import Defect
from quantkit.linting.neighbours import has_dequantize_before
from quantkit.linting.rule import LintRule
from quantkit.qdq.reader import QdqGraph, moved_tensors

REMEDY = "give all the same scale, or quantize the result alone"


def find_concat_scales(qdq: QdqGraph) -> Iterator[Defect]:
    """Yield Concats before a QuantizeLinear whose inputs have unequal scales, or of which only some have one.

    Where all scales in front and behind are equal, Q moves in front of the Concat, to the inputs without a pair: so
    `quantize` leaves them for TensorRT 8, which is faster (docs/decisions/0018-kernels-that-write-int8.md).
    """
    for node in qdq.nodes:
        behind = qdq.quantizers_of(node.output[0])
        if node.op_type != "Concat" or not behind:
            continue
        names = [name for name in node.input if name not in qdq.constants]
        covered = [name for name in names if has_dequantize_before(qdq, name)]
        pairs = [qdq.qdq_nodes[source] for name in covered for source in sorted(moved_tensors(qdq, name))]
        scales = {key for pair in pairs if (key := scale_key(pair)) is not None}
        if covered and len(covered) < len(names):
            if len(scales) == 1 and scales == {scale_key(pair) for pair in behind}:
                continue
            yield Defect(node_name(node), f"{len(covered)} of {len(names)} inputs have Q/DQ", REMEDY)
        elif len(scales) > 1:
            which = f"{len(scales)} scales ({scale_range_text(pairs)})"
            yield Defect(node_name(node), f"its {len(names)} inputs have {which}, which are converted to one", REMEDY)


RULE = LintRule(
    "concat-scales",
    "slow",
    "inputs of a Concat with unequal scales, or some without and another scale behind: they are converted",
    find_concat_scales,
)
