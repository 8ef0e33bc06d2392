"""The sets of ONNX operators that quantkit distinguishes, and where weighted operators keep their channels.

A set that differs from another on purpose is derived from it, so that the difference can be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

ONNX_DOMAINS = frozenset({"", "ai.onnx"})
"""Two names of the domain of ONNX's own operators."""

# Q/DQ and integers ------------------------------------------------------------------------------------------------

QDQ = frozenset({"QuantizeLinear", "DequantizeLinear"})
QDQ_DOMAINS = ONNX_DOMAINS | {"com.microsoft"}
"""Domains of Q/DQ nodes: ONNX's, and onnxruntime's own with its 16-bit types."""
INTEGER_OPERATORS = frozenset({"ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul"})
"""ONNX operators that compute with integers themselves; TensorRT has none of them."""
FOREIGN_INTEGER_OPERATORS = (
    *("QLinear", "QGemm", "QAttention", "QEmbed", "QMoE", "Quantize", "Dequantize", "DynamicQuantize"),
    *("MatMulInt", "MatMulNBits", "MatMulBnb4"),
)
"""Beginnings of the names of integer operators in the domain com.microsoft."""
DEQUANTIZING_ENDS = frozenset({"Mul", "DequantizeLinear"})
"""Last operators of a chain that turns integers into real numbers."""
DEQUANTIZING_CHAIN = DEQUANTIZING_ENDS | {"Cast", "Sub"}
"""All operators of such a chain."""

# Weights and arithmetic -------------------------------------------------------------------------------------------

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
WEIGHTED = CONVOLUTIONS | {"Gemm", "MatMul"}
"""Operators with weights, which TensorRT runs in INT8."""
UNQUANTIZED_WEIGHTED = frozenset({"DeformConv", "Einsum", "GRU", "LSTM", "RNN"})
"""Operators with weights that quantkit does not quantize."""
FUSING_WEIGHTED = WEIGHTED - {"MatMul"}
"""Weighted operators into whose kernel TensorRT fuses what follows them."""
ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div"})
"""Elementwise operators of two inputs."""
DECODING_ARITHMETIC = ARITHMETIC | {"Pow"}
"""Arithmetic that decodes boxes where it meets a grid."""
SCALE_KEEPING_ARITHMETIC = ARITHMETIC | {"BatchNormalization", "Concat", "Identity"}
"""Operators that fuse with the INT8 layer before them, and let a Clip fuse as well."""

# Activations ------------------------------------------------------------------------------------------------------

CLIPPING = frozenset({"Relu", "Clip"})
"""Activations that only cut values off, which the range of a Q/DQ pair can do as well."""
PIECEWISE_LINEAR = CLIPPING | {"LeakyRelu", "PRelu"}
SIGMOIDS = frozenset({"Sigmoid", "HardSigmoid"})
ACTIVATIONS = (
    PIECEWISE_LINEAR | SIGMOIDS | {"Elu", "Selu", "HardSwish", "Tanh", "Softplus", "Gelu", "Mish", "Erf"}
)  # fmt: skip
"""Activation functions, which see one value at a time."""
CURVED = ACTIVATIONS - PIECEWISE_LINEAR
"""Activations whose input needs a pair of its own to run in INT8; Q and DQ do not pass through them."""
NEARLY_LINEAR = PIECEWISE_LINEAR | {"Celu", "Elu", "Gelu", "HardSwish", "Mish", "Swish"}
"""Activations that leave large values nearly as they are."""
GATE_OPERATORS = PIECEWISE_LINEAR | SIGMOIDS | ARITHMETIC | {"BatchNormalization", "HardSwish", "Tanh"}
"""Operators without weights that squeeze-and-excite gates are made of."""
FUSED_BEHIND_CONVOLUTION = PIECEWISE_LINEAR | {"BatchNormalization", "HardSwish", "Sigmoid"}
"""Operators that TensorRT computes inside the kernel of the convolution before them."""
NORMALIZING = frozenset({"Softmax", "LogSoftmax", "LayerNormalization"})

# Pools ------------------------------------------------------------------------------------------------------------

WINDOW_POOLS = frozenset({"AveragePool", "MaxPool"})
"""Pools whose output takes the scale of their input; GlobalAveragePool keeps its own (measured with TensorRT 8.6)."""
GLOBAL_POOLS = frozenset({"GlobalAveragePool", "GlobalMaxPool"})
AVERAGE_POOLS = frozenset({"AveragePool", "GlobalAveragePool"})
"""Pools that make new values: Q and DQ do not pass through them."""
POOLS = WINDOW_POOLS | GLOBAL_POOLS
POSSIBLY_GLOBAL_POOLS = WINDOW_POOLS | {"ReduceMean", "ReduceMax"}
"""Pools that are global where a single value is left for each channel: a mean over channels (CBAM, arXiv 1807.06521)
is not."""

# Moving values ----------------------------------------------------------------------------------------------------

RESHAPING = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})
"""Operators that change the shape alone; the order of the values stays."""
REARRANGING = RESHAPING | {
    "DepthToSpace", "Dropout", "Expand", "Identity", "MaxPool", "ReverseSequence", "SpaceToDepth", "Tile", "Transpose",
}  # fmt: skip
"""Operators whose output holds the values of their first input, of MaxPool the largest of them."""
PICKING = frozenset({"Gather", "GatherElements", "GatherND", "Slice", "Split"})
"""Operators whose outputs hold some of the values of their first input."""
COMMUTING = REARRANGING | PICKING | {"Concat"}
"""Operators that move values and make no new ones, through which Q and DQ pass."""
INTEGER_MOVING = COMMUTING - {"Dropout"}
"""Operators that move integers as well; ONNX defines Dropout for floats alone."""
SCALE_SHARING = RESHAPING | {"Concat", "Identity", "MaxPool", "Transpose"}
"""Operators whose inputs and outputs have one scale in TensorRT."""
MASK_PASSING = (COMMUTING - {"MaxPool"}) | {"Add", "Cast", "Max", "Sub", "Where"}
"""Operators that pass on the large negative numbers of a mask."""
MASK_IGNORING = frozenset(
    {"ArgMax", "Exp", "HardSigmoid", "Hardmax", "LogSoftmax", "NonMaxSuppression", "ReduceLogSumExp", "ReduceMax"}
    | {"Sigmoid", "Softmax", "TopK"}
)
"""Operators to whose result a large negative number adds nothing."""
MASK_INPUTS: Mapping[tuple[str, str], int] = {
    ("", "Attention"): 3,
    ("ai.onnx", "Attention"): 3,
    ("com.microsoft", "Attention"): 5,
    ("com.microsoft", "MultiHeadAttention"): 5,
}
"""Domain and operator → the place of its input that is added to the scores before its Softmax."""
DEQUANTIZED_BEFORE = COMMUTING | {"Relu"}
"""Operators that TensorRT moves DequantizeLinear forward through: behind them INT8 goes on."""
SCALE_CONVERTING = COMMUTING - {"Concat", "Dropout", "Identity"}
"""Operators that have to convert values where the scales before and behind them differ."""
QUANTIZED_BEFORE = (SCALE_SHARING - {"Concat"}) | CLIPPING
"""Operators that TensorRT 8.6 moves QuantizeLinear ahead of, rightly or, for a Clip, not."""

# Constants --------------------------------------------------------------------------------------------------------

CONSTANT_FOLDING = (COMMUTING - {"MaxPool", "ReverseSequence"}) | ARITHMETIC | {
    "Abs", "And", "Cast", "Ceil", "Clip", "ConstantOfShape", "Cos", "CumSum", "Equal", "Erf", "Exp", "Floor", "Gemm",
    "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Log", "LpNormalization", "MatMul", "Max", "Mean", "Min", "Mod",
    "Neg", "Not", "Or", "Pad", "Pow", "Range", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "Round", "Shape", "Sigmoid", "Sign", "Sin",
    "Size", "Softmax", "Softplus", "Sqrt", "Sum", "Tanh", "Trilu", "Where", "Xor",
}  # fmt: skip
"""Operators that are computed once where constants alone decide their result."""
EXACT_FOLDING = CONSTANT_FOLDING - {
    "Cos", "CumSum", "Erf", "Exp", "Gemm", "Log", "LpNormalization", "MatMul", "Mean", "Pow", "ReduceL1", "ReduceL2",
    "ReduceMean", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Sigmoid", "Sin", "Softmax", "Softplus", "Sum", "Tanh",
}  # fmt: skip
"""Those of them that give the same bits wherever they are computed."""

# Signs ------------------------------------------------------------------------------------------------------------

NON_NEGATIVE = SIGMOIDS | {"Abs", "Exp", "ReduceL1", "ReduceL2", "Relu", "Softmax", "Softplus", "Sqrt"}
"""Operators whose output is never negative."""
NON_NEGATIVE_OF_ALL = POOLS | {
    "Add", "Concat", "Mean", "Min", "Mul", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Sum",
}  # fmt: skip
"""Operators whose output is not negative where none of their inputs is."""
NON_NEGATIVE_OF_FIRST = (COMMUTING - NON_NEGATIVE_OF_ALL) | {"Cast", "LeakyRelu", "PRelu"}
"""Operators whose output is not negative where their first input is not; the others are settings."""

# Factors per channel ----------------------------------------------------------------------------------------------

HOMOGENEOUS = frozenset({"Relu", "LeakyRelu", "Identity"})
"""Operators that pass a positive factor on whatever their parameters are."""
FACTOR_ABSORBING = frozenset({"LayerNormalization", "Mul"})
"""Operators whose constants take the factors of their output."""
FACTOR_PASSING = HOMOGENEOUS | POOLS | RESHAPING | {"ReduceMean"}
"""Operators with one activation and no constants that pass a factor per channel on."""

# Detection heads --------------------------------------------------------------------------------------------------

BOX_SELECTING = frozenset(
    {"NonMaxSuppression", "TopK", "EfficientNMS_TRT", "BatchedNMS_TRT", "BatchedNMSDynamic_TRT"}
)  # fmt: skip
"""Operators that select boxes."""

# Shapes -----------------------------------------------------------------------------------------------------------

SHAPE_OPERATORS = frozenset({"Shape", "Size"})
"""Operators whose output depends on the shape of their input alone."""
DATA_DEPENDENT = frozenset(
    {"NonZero", "NonMaxSuppression", "Unique", "Compress", "If", "Loop", "Scan", "ConstantOfShape", "Range"}
)
"""Operators whose output shape depends on values, unless these follow from shapes."""
INDEXING = PICKING - {"Slice", "Split"} | ARITHMETIC | {
    "And", "BitShift", "Cast", "Concat", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual",
    "Max", "Min", "Mod", "Not", "Or", "Pow", "ScatterElements", "ScatterND", "Sum", "Where", "Xor",
}  # fmt: skip
"""Operators whose integer inputs may depend on values without changing the shape of their output."""

# float16 ----------------------------------------------------------------------------------------------------------

COORDINATE_OPERATORS = frozenset({"RoiAlign", "GridSample", "AffineGrid"})
"""Operators that compute with coordinates."""
TYPED_LIKE_INPUT = frozenset({"RandomNormalLike", "RandomUniformLike", "EyeLike", "Bernoulli", "Multinomial"})
"""Operators that make values of their own in the type of an input, which need not be that of the output."""
GROWING = frozenset(
    {
        "Pow", "Exp", "ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceProd", "ReduceLogSum",
        "ReduceLogSumExp", "CumSum", "Cosh", "Sinh",
    }
)  # fmt: skip
"""Operators whose values may exceed the range of float16."""
RANGE_ENDING = SIGMOIDS | NORMALIZING | {
    "Div", "Reciprocal", "Log", "Tanh", "Softsign", "Sign", "Erf", "InstanceNormalization", "LpNormalization",
}  # fmt: skip
"""Operators whose output is in range again, whatever their input is."""
RANGE_CARRYING = COMMUTING | CLIPPING | (ARITHMETIC - RANGE_ENDING) | {
    "Abs", "Cast", "Ceil", "Floor", "Max", "Mean", "Min", "Mod", "Neg", "Pad", "ReduceMax", "ReduceMean", "ReduceMin",
    "Round", "Sqrt", "Sum", "Where",
}  # fmt: skip
"""Operators whose output is out of range where an input is."""

# Channels of weights ----------------------------------------------------------------------------------------------


def computes_in_integers(node: onnx.NodeProto) -> bool:
    """Return True for integer operators of ONNX and onnxruntime."""
    if node.domain == "com.microsoft":
        return bool(node.op_type.startswith(FOREIGN_INTEGER_OPERATORS))
    return node.op_type in INTEGER_OPERATORS


def convolution_groups(node: onnx.NodeProto) -> int:
    """Return the `group` of a convolution."""
    return int(next((a.i for a in node.attribute if a.name == "group"), 1))


def weight_axis(node: onnx.NodeProto, k: int, rank: int) -> int:
    """Return the axis of the output channels of a weight of `rank` dimensions, which is input `k` of a node."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    if node.op_type == "Gemm":
        transposed = any(a.name == ("transA" if k == 0 else "transB") and a.i for a in node.attribute)
        return int(transposed) if k == 0 else int(not transposed)
    return rank - 1 if k == 1 else max(rank - 2, 0)


def scale_axis(node: onnx.NodeProto, k: int, rank: int) -> int | None:
    """Return the axis along which a weight gets its scales: that of its output channels.

    None, for a single scale, where the weight is a stack of matrices: onnxruntime does not run those with scales per
    channel.
    """
    return None if node.op_type == "MatMul" and rank > 2 else weight_axis(node, k, rank)
