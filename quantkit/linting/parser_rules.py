"""What TensorRT rejects in a Q/DQ network or reads otherwise than the file says, whichever tool wrote it.

The rules are the checks of TensorRT's ONNX parser (onnx-tensorrt, QuantDequantLinearHelper: symmetric INT8, positive
constant scales as many as there are channels) and of its developer guide ("Explicit quantization": activations per
tensor, weights per output channel). What runs and could run faster is in `quantkit.linting.placement_rules`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from quantkit.graph.model import Model, place
from quantkit.graph.operators import WEIGHTED, weight_axis
from quantkit.linting.clip_rule import misread_clips
from quantkit.linting.finding import Finding, finding
from quantkit.linting.fixable import MIDDLE, bias_values, is_free, is_shifted_int8, zero_scales
from quantkit.linting.placement_rules import PLACEMENT
from quantkit.numerics import TINY
from quantkit.qdq.insert import LEAST_OPSET
from quantkit.qdq.reader import FLOAT_SCALES, QdqGraph, QdqNode, QuantizedTensor, read_qdq

if TYPE_CHECKING:
    import onnx

    from quantkit.values import Array

HALF_OPSET = 19
"""The first with float16 scales."""
MOVING = frozenset(
    {
        "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Reshape", "Slice",
        "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
    }
)  # fmt: skip
"""They move values without computing, also INT8 ones."""
INTEGER_OPERATORS = frozenset({"ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul"})
FOREIGN = (
    "QLinear",
    "QGemm",
    "QAttention",
    "QEmbed",
    "QMoE",
    "Quantize",
    "Dequantize",
    "DynamicQuantize",
    "MatMulInt",
    "MatMulNBits",
)
"""How the integer operators of com.microsoft begin."""
SYMMETRIC = "quantize symmetrically (onnxruntime: QInt8, ActivationSymmetric=True)"
AGAIN = "quantize again"


def lint(model: Model) -> tuple[Finding, ...]:
    """What TensorRT will reject or run slowly, in graph order; empty where nothing is wrong.

    ModelError where external weights that have to be looked at are missing.
    """
    return findings_of(read_qdq(model))


def findings_of(reading: QdqGraph) -> tuple[Finding, ...]:
    """All findings in a network that was read."""
    order: dict[str, int] = {}
    for number, node in enumerate(reading.graph.node):
        order.setdefault(place(node), number)
    found = [f for rule in (*WHOLE, *PLACEMENT) for f in rule(reading)]
    found += [f for carrier in reading.carriers for rule in rules_for(reading, carrier) for f in rule(reading, carrier)]
    return tuple(sorted(dict.fromkeys(found), key=lambda f: order[f.where]))


# Operators --------------------------------------------------------------------------------------------------------


def integer_operators(reading: QdqGraph) -> Iterator[Finding]:
    """Operators that compute in integers themselves, which TensorRT has none of."""
    for node in reading.graph.node:
        if node.op_type.startswith("TRT_") and "quantize" in node.op_type.lower():
            yield finding("not-int8", place(node), f"{node.op_type} is not INT8", "quantize to INT8")
        elif computes_in_integers(node):
            told = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            yield finding(
                "integer-operator",
                place(node),
                f"TensorRT has no {told}",
                "write QuantizeLinear and DequantizeLinear of ONNX around float operators "
                "(onnxruntime: quant_format=QuantFormat.QDQ)",
            )


def computes_in_integers(node: onnx.NodeProto) -> bool:
    """Whether a node is an integer operator of ONNX or onnxruntime."""
    if node.domain == "com.microsoft":
        return bool(node.op_type.startswith(FOREIGN))
    return node.op_type in INTEGER_OPERATORS


# One quantized tensor ---------------------------------------------------------------------------------------------


def stored_type(_: QdqGraph, carrier: QuantizedTensor) -> Iterator[Finding]:
    """A type that is not INT8."""
    first = carrier.steps[0]
    if first.stored not in ("int8", "uint8", ""):
        yield finding(
            "not-int8",
            first.where,
            f"{first.stored}, not INT8: TensorRT 8.6 … 10 has no integer kernels for it, or wants another network type",
            "quantize to INT8",
        )


def int32_bias(reading: QdqGraph, carrier: QuantizedTensor) -> Iterator[Finding]:
    """A stored bias behind DequantizeLinear; TensorRT adds biases in float."""
    for step in carrier.dequantize:
        fixable = bias_values(reading, step) is not None
        yield finding(
            "int32-bias",
            step.where,
            f"int32 bias {step.data!r} behind DequantizeLinear; TensorRT wants it in float",
            "store bias·scale in float (onnxruntime: QuantizeBias=False)",
            fixable=fixable,
        )


def unsigned(reading: QdqGraph, carrier: QuantizedTensor) -> Iterator[Finding]:
    """uint8, which TensorRT reads as INT8 or refuses."""
    steps = carrier.steps
    zeros = [step.zero for step in steps]
    low, high = extremes(zeros)
    if is_shifted_int8(carrier):
        yield finding(
            "uint8",
            steps[0].where,
            f"uint8 with zero point {MIDDLE}; TensorRT wants int8 with 0, which is the same numbers",
            SYMMETRIC,
            fixable=is_free(reading, carrier),
        )
    elif all(zero is not None or not step.zero_name for zero, step in zip(zeros, steps, strict=True)) and not high:
        yield finding(
            "uint8",
            steps[0].where,
            "uint8 with zero point 0; TensorRT refuses it, or reads it as INT8 and clips above 127·scale",
            SYMMETRIC,
        )
    else:
        told = str(low) if low == high else f"{low} … {high}"
        yield finding("zero-point", steps[0].where, f"uint8 with zero point {told}; TensorRT wants 0", SYMMETRIC)


def extremes(zeros: Iterable[Array | None]) -> tuple[int, int]:
    """The least and the largest zero point; an absent one is 0."""
    values = [int(v) for zero in zeros for v in ([0] if zero is None else zero.ravel())] or [0]
    return min(values), max(values)


def zero_points(reading: QdqGraph, carrier: QuantizedTensor) -> Iterator[Finding]:
    """int8 that is not symmetric, or a zero point of 0 in another form than TensorRT takes."""
    for step in carrier.steps:
        if step.zero_name and step.zero is None:
            if step.zero_name not in reading.constants:
                yield finding("zero-point", step.where, "the zero point is not constant; TensorRT wants 0", SYMMETRIC)
            continue
        low, high = extremes([step.zero])
        if low or high:
            told = str(low) if low == high else f"{low} … {high}"
            yield finding("zero-point", step.where, f"zero point {told}; TensorRT wants 0", SYMMETRIC)
            return
        wrong = zero_form(reading, step)
        if wrong:
            yield finding("zero-point-type", step.where, wrong, "write an int8 zero for every scale", fixable=True)


def zero_form(reading: QdqGraph, step: QdqNode) -> str | None:
    """What is wrong with the form of a zero point of 0, of an int8 node."""
    if step.stored != "int8":
        return None
    if not step.zero_name:
        return "no zero point, which TensorRT 8 does not parse"
    kind = reading.types.get(step.zero_name, "")
    if kind != step.stored:
        return f"the zero point is {kind}, the tensor {step.stored}"
    if step.scale is not None and step.zero is not None and step.zero.size != step.scale.size:
        return f"{step.zero.size} zero points for {step.scale.size} scales"
    return None


# Scales -----------------------------------------------------------------------------------------------------------


def scale_values(reading: QdqGraph, carrier: QuantizedTensor) -> Iterator[Finding]:
    """Scales that are no positive normal numbers, that are computed, or of another type."""
    for step in distinct(carrier):
        if step.scale_type not in FLOAT_SCALES:
            if step.scale_type:
                told = f"the scale is {step.scale_type}"
                yield finding("scale-type", step.where, told, "store scales as float32 or float16")
        elif step.scale is None:
            if step.node.input[1] not in reading.constants:
                told = f"the scale {step.node.input[1]!r} is computed from the input"
                yield finding("scale-constant", step.where, told, "quantize statically: calibrate, and store the scale")
        else:
            yield from numbers(reading, carrier, step)


def numbers(reading: QdqGraph, carrier: QuantizedTensor, step: QdqNode) -> Iterator[Finding]:
    """Scales that are 0, negative, NaN, Inf or subnormal."""
    scale = np.asarray(step.scale, np.float64).ravel()
    bad = scale[~((scale > 0) & np.isfinite(scale))]
    if bad.size:
        share = f"{bad.size} of {scale.size} scales" if scale.size > 1 else "the scale"
        told = ", ".join(dict.fromkeys(f"{v:g}" for v in bad[:3]))
        yield finding(
            "scale-value",
            step.where,
            f"{share}: {told}; TensorRT wants positive numbers",
            "the least normal number serves where everything is zero" if not bad.any() else AGAIN,
            fixable=zero_scales(reading, carrier) is not None,
        )
    elif step.scale_type == "float32" and (scale < TINY).any():
        told = f"scale {scale.min():g} is subnormal: a GPU may take it for 0"
        yield finding("subnormal-scale", step.where, told, f"raise it to {TINY:g}")


def scale_shapes(reading: QdqGraph, carrier: QuantizedTensor) -> Iterator[Finding]:
    """Scales along a channel axis: on activations, in a wrong number, or in an operator set without axes."""
    for step in distinct(carrier):
        if step.scale_type == "float16" and reading.model.opset < HALF_OPSET:
            told = f"float16 scales in operator set {reading.model.opset}"
            yield finding("opset", step.where, told, f"raise the operator set to {HALF_OPSET}")
        if not step.per_channel or step.scale is None:
            continue
        if reading.model.opset < LEAST_OPSET:
            told = f"{step.scale.size} scales in operator set {reading.model.opset}"
            yield finding("opset", step.where, told, f"raise the operator set to {LEAST_OPSET}")
        if step.result not in reading.constants:
            told = f"{step.scale.size} scales on an activation; TensorRT takes one"
            yield finding("activation-per-channel", step.where, told, "quantize activations per tensor")
            continue
        dims = reading.shapes.get(step.data) or reading.shapes.get(step.result)
        if dims is None:
            continue
        if step.scale.ndim != 1 or not -len(dims) <= step.axis < len(dims):
            told = f"scales of shape {list(step.scale.shape)} along axis {step.axis} of {list(dims)}"
            yield finding("scale-shape", step.where, told, "one scale, or a vector of one per output channel")
        elif dims[step.axis] not in (None, step.scale.size):
            told = f"{step.scale.size} scales for {dims[step.axis]} channels along axis {step.axis}"
            yield finding("scale-shape", step.where, told, AGAIN)


def weight_axes(reading: QdqGraph, carrier: QuantizedTensor) -> Iterator[Finding]:
    """Scales of weights along another axis than that of the output channels."""
    for step in carrier.dequantize:
        dims = reading.shapes.get(step.data) or reading.shapes.get(step.result) or ()
        if not step.per_channel or step.result not in reading.constants or not -len(dims) <= step.axis < len(dims):
            continue
        axis = step.axis % len(dims)
        for node, k in reading.readers.get(step.result, ()):
            if node.op_type not in WEIGHTED or k > 1:
                continue
            wanted = weight_axis(node, k, len(dims))
            if axis != wanted:
                told = f"the scales of {node.op_type}'s weights lie along axis {axis}, its output channels along axis"
                yield finding("weight-axis", place(node), f"{told} {wanted}", f"quantize along axis {wanted}")


def distinct(carrier: QuantizedTensor) -> Iterator[QdqNode]:
    """The nodes of a carrier without those that repeat another's parameters."""
    seen: set[tuple[str, int]] = set()
    for step in carrier.steps:
        key = (step.node.input[1], step.axis)
        if key not in seen:
            seen.add(key)
            yield step


# Whole pairs ------------------------------------------------------------------------------------------------------


def ends(reading: QdqGraph, carrier: QuantizedTensor) -> Iterator[Finding]:
    """A node without its other half, and integer inputs and outputs."""
    outputs = {value.name for value in reading.graph.output}
    inputs = {value.name for value in reading.graph.input} - set(reading.weights)
    if carrier.quantize:
        step = carrier.quantize
        if carrier.name in outputs:
            told = f"the engine's output {carrier.name!r} is {step.stored}; who reads it has to dequantize"
            yield finding("integer-boundary", step.where, told, "end the network with DequantizeLinear")
        elif not is_dequantized(reading, carrier.name) and not integers_behind(reading, carrier.name):
            readers = ", ".join(dict.fromkeys(n.op_type for n, _ in reading.readers.get(carrier.name, ())))
            told = f"no DequantizeLinear behind it, but {readers or 'nothing'}"
            yield finding("lone-quantize", step.where, told, "put a DequantizeLinear behind it")
        return
    step = carrier.dequantize[0]
    if carrier.name in inputs:
        told = f"the engine's input {carrier.name!r} is {step.stored}; who feeds it has to quantize"
        yield finding("integer-boundary", step.where, told, "begin the network with QuantizeLinear on a float input")
    elif carrier.name not in reading.constants and not is_quantized(reading, carrier.name):
        maker = reading.producers.get(carrier.name)
        if maker is not None and computes_in_integers(maker):
            return  # told there
        told = f"it dequantizes {carrier.name!r}, which {maker.op_type if maker else 'nothing'} makes"
        yield finding("lone-dequantize", step.where, told, "dequantize what a QuantizeLinear made, or stored INT8")


def is_dequantized(reading: QdqGraph, name: str) -> bool:
    """Whether everything that reads a quantized tensor is DequantizeLinear, or moves values to one."""
    readers = reading.readers.get(name, ())
    return bool(readers) and all(
        node.output[0] in reading.steps
        or (node.op_type in MOVING and all(is_dequantized(reading, output) for output in node.output))
        for node, _ in readers
    )


def integers_behind(reading: QdqGraph, name: str) -> bool:
    """Whether an integer operator reads a tensor, which is told there."""
    return any(computes_in_integers(node) for node, _ in reading.readers.get(name, ()))


def is_quantized(reading: QdqGraph, name: str) -> bool:
    """Whether QuantizeLinear made a tensor, or moved values of one."""
    step, node = reading.before(name), reading.producers.get(name)
    if step is not None:
        return step.quantizes
    return node is not None and node.op_type in MOVING and is_quantized(reading, node.input[0])


def clips_apart(reading: QdqGraph) -> Iterator[Finding]:
    """Clips that TensorRT 8.6 applies to integers."""
    for node in misread_clips(reading):
        yield finding(
            "clip-apart",
            place(node),
            f"no INT8 layer makes {node.input[0]!r}: TensorRT 8.6 quantizes before this Clip, and clips the integers",
            "write it as Relu and Min, or quantize what makes its input",
            fixable=True,
        )


WHOLE: tuple[Callable[[QdqGraph], Iterator[Finding]], ...] = (integer_operators, clips_apart)
Rule = Callable[[QdqGraph, QuantizedTensor], Iterator[Finding]]


def rules_for(reading: QdqGraph, carrier: QuantizedTensor) -> tuple[Rule, ...]:
    """The rules for a quantized tensor, by its type."""
    stored = carrier.steps[0].stored
    if stored == "int32" and carrier.quantize is None and carrier.name in reading.constants:
        return (int32_bias,)
    if stored not in ("int8", "uint8", ""):
        return (stored_type,)
    zero_rule = unsigned if stored == "uint8" else zero_points
    return (zero_rule, scale_values, scale_shapes, weight_axes, ends)
