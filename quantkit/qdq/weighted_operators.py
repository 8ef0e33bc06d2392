"""Every operator of a network that has weights, also where quantkit cannot quantize it, so that INT8 shares are honest.

Conv, ConvTranspose, Gemm, MatMul                  quantized
the same inside If, Loop and Scan                  float
the same inside functions that stay functions      float
LSTM, GRU, RNN, Einsum, DeformConv                 float
operators of other domains with weights            float
integer operators of ONNX and onnxruntime          as they are

FP8 kernels of TensorRT 10 and later, by modelopt's exporter (modelopt/onnx/quantization/fp8.py) and NVIDIA/TensorRT
issue 3987: Gemm and MatMul; Conv with at least 16 input and output channels, of equal remainders by 16, and at most 32
taps. TensorRT-RTX 1.7 has them for every Conv (measured): docs/decisions/0022-fp8.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from quantkit.graph.dependencies import constant_tensors
from quantkit.graph.functions import Key, function_key
from quantkit.graph.model import DTYPES, node_name
from quantkit.graph.operators import (
    BOX_SELECTING,
    ONNX_DOMAINS,
    UNQUANTIZED_WEIGHTED,
    WEIGHTED,
    computes_in_integers,
    convolution_groups,
)
from quantkit.graph.subgraphs import subgraphs
from quantkit.graph.weights import stored_tensors
from quantkit.qdq.float_reason import FloatCause, FloatReason
from quantkit.qdq.reader import is_qdq

if TYPE_CHECKING:
    import onnx

FP8_CHANNELS, FP8_TAPS = 16, 32
"""The fewest channels, and the most taps, of convolutions that have FP8 kernels."""
FLOATS = frozenset({"float16", "float32", "float64", "bfloat16"})


@dataclass(frozen=True, slots=True, eq=False)
class WeightedOperator:
    """An operator with weights. unreachable: why quantkit cannot quantize it wherever it is; None if it can."""

    name: str
    node: onnx.NodeProto
    unreachable: FloatReason | None = None


def weighted_operators(proto: onnx.ModelProto) -> list[WeightedOperator]:
    """Return the operators with weights of a network, in graph order, those inside other operators too."""
    finder = WeightFinder({function_key(function): function for function in proto.functions})
    return list(finder.find(proto.graph))


def unreachable_operators(proto: onnx.ModelProto) -> dict[str, FloatReason]:
    """Return operator with weights → why quantkit cannot quantize it, for those that stay float for that reason."""
    return {found.name: found.unreachable for found in weighted_operators(proto) if found.unreachable is not None}


class WeightFinder:
    """A search through a graph, its subgraphs, and the functions that it calls."""

    def __init__(self, functions: Mapping[Key, onnx.FunctionProto]) -> None:
        self._functions = functions

    def find(
        self, graph: onnx.GraphProto, outside: Iterable[str] = (), inside: FloatReason | None = None, prefix: str = ""
    ) -> Iterator[WeightedOperator]:
        """Yield the operators with weights. outside: constants around the graph; inside: what the graph is part of."""
        known = constant_tensors(graph, outside)
        weights = stored_tensors(graph)
        for node in graph.node:
            name = prefix + node_name(node)
            if (function := self._functions.get(function_key(node))) is not None:
                yield from self._find_in_function(function, node, known, name)
            elif node.domain in ONNX_DOMAINS and node.op_type in WEIGHTED:
                if is_weighted(node, known, 2):
                    yield WeightedOperator(name, node, inside)
            elif computes_in_integers(node):
                if not is_qdq(node) and has_matrix(node, weights):
                    yield WeightedOperator(name, node, inside or FloatReason(FloatCause.INTEGERS, full_type(node)))
            elif is_weighted(node, known) and (node.op_type in UNQUANTIZED_WEIGHTED or is_foreign(node, weights)):
                yield WeightedOperator(name, node, inside or FloatReason(FloatCause.UNSUPPORTED, full_type(node)))
            for attribute in node.attribute:
                for inner in subgraphs(attribute):
                    yield from self.find(inner, known, FloatReason(FloatCause.NESTED, node.op_type, name), prefix)

    def _find_in_function(
        self, function: onnx.FunctionProto, call: onnx.NodeProto, known: Iterable[str], name: str
    ) -> Iterator[WeightedOperator]:
        import onnx

        constant = set(known)
        body = onnx.GraphProto(name=function.name, node=function.node)
        given = [formal for formal, actual in zip(function.input, call.input, strict=False) if actual in constant]
        yield from self.find(body, given, FloatReason(FloatCause.NESTED, f"function {call.op_type}", name), f"{name}/")


def is_weighted(node: onnx.NodeProto, constants: set[str], places: int | None = None) -> bool:
    """Return whether some of the first `places` inputs of a node are constant, and some depend on the data."""
    found = [name in constants for name in node.input[:places] if name]
    return any(found) and not all(found)


def is_foreign(node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto]) -> bool:
    """Return whether an operator of another domain than ONNX's has a matrix of floats."""
    if node.domain in ONNX_DOMAINS or is_qdq(node) or node.op_type in BOX_SELECTING:
        return False
    return has_matrix(node, weights, FLOATS)


def has_matrix(
    node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto], types: frozenset[str] | None = None
) -> bool:
    """Return whether an operator reads a stored matrix, of one of `types` if they are given."""
    read = [weights[name] for name in node.input if name in weights]
    return any(len(w.dims) > 1 and (types is None or DTYPES.get(w.data_type) in types) for w in read)


def full_type(node: onnx.NodeProto) -> str:
    """Return the type of an operator, with its domain if that is not ONNX's."""
    return str(node.op_type) if node.domain in ONNX_DOMAINS else f"{node.domain}.{node.op_type}"


def missing_fp8_kernel(node: onnx.NodeProto, weight: Sequence[int | None] | None) -> str:
    """Return why TensorRT has no FP8 kernel for a weighted operator, in brackets; empty if it has one.

    weight: the shape of the weights; None for a product of two activations.
    """
    if node.op_type == "ConvTranspose":
        return f"({node.op_type})"
    if node.op_type != "Conv" or weight is None:
        return ""
    outputs, inputs, *kernel = (size or 0 for size in weight)
    if inputs == 1 and convolution_groups(node) > 1:
        return "(depthwise)"
    if inputs < FP8_CHANNELS:
        return f"({inputs} input channels)"
    if outputs < FP8_CHANNELS:
        return f"({outputs} output channels)"
    if inputs % FP8_CHANNELS != outputs % FP8_CHANNELS:
        return f"({inputs} and {outputs} channels, of different remainders by {FP8_CHANNELS})"
    return f"({prod(kernel)} taps)" if prod(kernel) > FP8_TAPS else ""
