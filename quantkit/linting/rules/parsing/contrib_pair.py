"""contrib-pair: QuantizeLinear and DequantizeLinear of onnxruntime's own domain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from quantkit.graph.operators import ONNX_DOMAINS
from quantkit.linting.finding import Defect
from quantkit.linting.graph_edit import GraphEdit
from quantkit.linting.rule import LintRule
from quantkit.qdq.insert import LEAST_HALF_OPSET, LEAST_OPSET
from quantkit.qdq.reader import QdqGraph, QdqNode, is_qdq, read_qdq_node

if TYPE_CHECKING:
    import onnx

CONTRIB = "com.microsoft"
RENAMED = frozenset({"int8", "uint8", "int32"})
"""Types that ONNX's operators have as well, in every opset, with the same results; int32 is that of biases."""


def find_contrib_pairs(qdq: QdqGraph) -> Iterator[Defect]:
    """Yield the Q/DQ nodes of the domain com.microsoft."""
    for node in contrib_nodes(qdq):
        known = f" of {node.stored}" if node.stored else ""
        yield Defect(
            node.name,
            f"{CONTRIB}.{node.node.op_type}{known}; TensorRT has ONNX's own alone",
            "quantize without UseQDQContribOps (onnxruntime: extra_options UseQDQContribOps=False)"
            if node.stored in RENAMED
            else "quantize to INT8 with ONNX's own Q/DQ (onnxruntime: QInt8, extra_options UseQDQContribOps=False)",
            fixable=has_equal(qdq, node),
        )


def contrib_nodes(qdq: QdqGraph) -> Iterator[QdqNode]:
    """Yield the Q/DQ nodes of the domain com.microsoft, in graph order."""
    types = dict(qdq.types)
    for node in qdq.nodes:
        if is_qdq(node) and node.domain not in ONNX_DOMAINS and len(node.input) > 1:
            read = read_qdq_node(qdq.model, node, qdq.weights, types)
            types[read.result] = read.stored if read.quantizes else read.scale_type
            yield read


def has_equal(qdq: QdqGraph, node: QdqNode) -> bool:
    """Return whether ONNX's operator of the same name computes the same bits in the opset of the model."""
    opset = qdq.model.opset
    least = LEAST_OPSET if node.scale is None or node.per_channel else 10
    if node.scale_type != "float32":
        least = LEAST_HALF_OPSET
    return node.stored in RENAMED and opset >= least


def rename_contrib_pairs(edit: GraphEdit) -> None:
    """Put ONNX's operators in the place of onnxruntime's."""
    for node in contrib_nodes(edit.qdq):
        if has_equal(edit.qdq, node):
            edit.replace_node(node.result, without_domain)


def without_domain(node: onnx.NodeProto, tensors: set[str], nodes: set[str]) -> list[onnx.NodeProto]:
    """Return a node as one of ONNX's own domain; no names are taken."""
    del tensors, nodes
    renamed = type(node)()
    renamed.CopyFrom(node)
    renamed.ClearField("domain")
    return [renamed]


RULE = LintRule(
    "contrib-pair",
    "error",
    "Q/DQ of the domain com.microsoft (onnxruntime: UseQDQContribOps=True)",
    find_contrib_pairs,
    rename_contrib_pairs,
    "8-bit ones become ONNX's own, the same numbers",
)
