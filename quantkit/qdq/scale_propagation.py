"""Scales for tensors that have none, from neighbouring tensors: implicit INT8 needs a scale on every float tensor.

    MaxPool, Reshape, Transpose, …   input and output share a scale, in both directions; so does Pad with zeros
    Slice, Split, Gather             the same; backward only if nothing else reads the input: the largest of the outputs
    AveragePool                      its output takes the scale of its input, as in TensorRT's own tables
    Relu, Clip                       the output takes the scale of the input
    Relu, Clip, LeakyRelu, …         the input takes that of the output, if nothing else reads it: TensorRT fuses both
    Concat                           inputs take the scale of the output; the output takes the largest of the inputs

NVIDIA's qdq_translator does the same (Deep-Learning-Accelerator-SW, `infer_unchanged_scales`), but also guesses for
Sigmoid and Mul. Existing scales never change. The convolution's side of a residual Add gets none: no other tensor
determines its range.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from quantkit.graph.index import wire_graph
from quantkit.graph.operators import CLIPPING, NEARLY_LINEAR, PICKING, REARRANGING
from quantkit.graph.weights import stored_tensors

if TYPE_CHECKING:
    import onnx


def propagate_scales(graph: onnx.GraphProto, scales: Mapping[str, float], among: Collection[str]) -> dict[str, float]:
    """Return tensor → scale for the tensors in `among` that have none in `scales` and whose neighbours determine it."""
    spread = ScalePropagation(graph, scales, frozenset(among) - scales.keys())
    while spread.along_moves() or spread.through_activations():
        pass
    return {name: spread.scales[name] for name in among if name not in scales and name in spread.scales}


class ScalePropagation:
    """The scales that are known so far; every step adds some."""

    def __init__(self, graph: onnx.GraphProto, scales: Mapping[str, float], wanting: frozenset[str]) -> None:
        self.scales = dict(scales)
        self._wanting = wanting
        self._nodes = [node for node in graph.node if node.input and node.output]
        self._reads = wire_graph(graph).read_counts()
        constants = stored_tensors(graph)
        self._moves = [n for n in self._nodes if n.op_type in REARRANGING | PICKING or pads_with_zero(n, constants)]
        self._movers: dict[str, list[onnx.NodeProto]] = {}
        for node in self._moves:
            self._movers.setdefault(node.input[0], []).append(node)

    def along_moves(self) -> bool:
        """Propagate through operators that move values, forward and then back. Return whether that added a scale."""
        before = len(self.scales)
        moves = {node.output[0] for node in self._moves}
        for node in self._nodes:
            if node.output[0] in moves or node.op_type == "AveragePool":
                for name in node.output:
                    self._take(name, [node.input[0]])
        for name, movers in reversed(self._movers.items()):
            self._take(name, self._outputs(node for node in movers if node.op_type not in PICKING))
            outputs = self._outputs(movers)
            if self._reads[name] == len(movers) and all(output in self.scales for output in outputs):
                self._take(name, outputs)
        return len(self.scales) > before

    def through_activations(self) -> bool:
        """Propagate through activations and Concat. Return whether that added a scale."""
        before = len(self.scales)
        for node in self._nodes:
            if node.op_type in CLIPPING:
                self._take(node.output[0], [node.input[0]])
            if node.op_type == "Concat" and all(name in self.scales for name in node.input):
                self._take(node.output[0], node.input)
        for node in reversed(self._nodes):
            if node.op_type in NEARLY_LINEAR and self._reads[node.input[0]] == 1:
                self._take(node.input[0], [node.output[0]])
            if node.op_type == "Concat":
                for name in node.input:
                    self._take(name, [node.output[0]])
        return len(self.scales) > before

    def _outputs(self, nodes: Iterable[onnx.NodeProto]) -> list[str]:
        """Return the outputs that have a scale or need one; masks and indices do not."""
        return [name for node in nodes for name in node.output if name in self.scales or name in self._wanting]

    def _take(self, name: str, others: Iterable[str]) -> None:
        """Give `name` the largest scale of `others` if it needs one and they have some."""
        known = [self.scales[other] for other in others if other in self.scales]
        if known and name in self._wanting and name not in self.scales:
            self.scales[name] = max(known)


def pads_with_zero(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> bool:
    """Return whether a node pads with zeros or with values of its input."""
    from onnx import helper, numpy_helper

    if node.op_type != "Pad":
        return False
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    name = node.input[2] if len(node.input) > 2 else ""
    if attributes.get("mode", b"constant") != b"constant":
        return True
    if not name:
        return not attributes.get("value", 0.0)  # an attribute before opset 11
    known = constants.get(name)
    return (
        known is not None and bool(known.raw_data or not known.external_data) and not numpy_helper.to_array(known).any()
    )
