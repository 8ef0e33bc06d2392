"""Where Q/DQ pairs cost speed or accuracy: what TensorRT accepts, and could do better.

The rules are those of TensorRT's developer guide ("Q/DQ layer-placement recommendations"): quantize all inputs of
weighted operators, nothing between a convolution and what fuses into it, of a residual addition the skip alone, and
give one scale to what is joined or only moved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from quantkit.graph.model import place
from quantkit.graph.operators import WEIGHTED, weight_axis
from quantkit.linting.finding import Finding, finding
from quantkit.qdq.reader import QdqGraph, QdqNode, QuantizedTensor

if TYPE_CHECKING:
    import onnx

    from quantkit.values import Array

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose", "Gemm"})
FUSING = frozenset({"BatchNormalization", "Clip", "HardSwish", "LeakyRelu", "PRelu", "Relu", "Sigmoid"})
"""What TensorRT computes inside the kernel of the convolution before it."""
COMMUTING = frozenset({"Flatten", "Identity", "MaxPool", "Relu", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
"""Q moves backward and DQ forward through them."""
KEEPING = COMMUTING - {"Relu", "Identity"}
FEW_LEVELS = 8


def half_quantized(reading: QdqGraph) -> Iterator[Finding]:
    """Weighted operators of which one input has a pair and the other has none."""
    for node in reading.graph.node:
        if node.op_type not in WEIGHTED or len(node.input) < 2:
            continue
        covered = [is_dequantized(reading, name) for name in node.input[:2]]
        if covered[0] == covered[1]:
            continue
        constant = [name in reading.constants for name in node.input[:2]]
        kinds = (
            ["weights" if c else "activation" for c in constant] if any(constant) else ["first input", "second input"]
        )
        having, lacking = kinds[covered.index(True)], kinds[covered.index(False)]
        yield finding(
            "half-quantized",
            place(node),
            f"{node.op_type} runs in float: Q/DQ before its {having}, none before its {lacking}",
            "give both a pair, or neither",
        )


def is_dequantized(reading: QdqGraph, name: str) -> bool:
    """Whether DequantizeLinear made a tensor, with only what commutes with it in between."""
    while name not in reading.steps and name in reading.producers and reading.producers[name].op_type in COMMUTING:
        name = reading.producers[name].input[0]
    step = reading.before(name)
    return step is not None and not step.quantizes


def blocked_fusions(reading: QdqGraph) -> Iterator[Finding]:
    """Pairs between a convolution and the normalization or activation that would fuse into it."""
    for carrier in reading.carriers:
        if carrier.quantize is None:
            continue
        convolution = fusible(reading, carrier.quantize.data)
        behind = [node for step in carrier.dequantize for node, _ in reading.readers.get(step.result, ())]
        gates = {node.output[0] for node in behind if node.op_type == "Sigmoid"}
        fused = [n for n in behind if n.op_type in FUSING or (n.op_type == "Mul" and gates & set(n.input))]
        if convolution is None or not fused or len(fused) < len(behind):
            continue
        names = " and ".join(dict.fromkeys(node.op_type for node in fused))
        yield finding(
            "blocked-fusion",
            carrier.quantize.where,
            f"the pair between {convolution.op_type} {place(convolution)!r} and {names} keeps them from fusing",
            f"quantize behind {names} instead",
        )


def fusible(reading: QdqGraph, name: str) -> onnx.NodeProto | None:
    """The convolution whose result nothing else reads, batch normalization at most in between."""
    while reading.sole_reader(name) and name in reading.producers:
        node = reading.producers[name]
        if node.op_type in CONVOLUTIONS:
            return node
        if node.op_type != "BatchNormalization":
            return None
        name = node.input[0]
    return None


def residual_pairs(reading: QdqGraph) -> Iterator[Finding]:
    """Additions with a pair on both inputs, of which a convolution could have taken in the addition."""
    for node in reading.graph.node:
        if node.op_type != "Add" or len(node.input) != 2 or any(name in reading.constants for name in node.input):
            continue
        steps = [reading.before(name) for name in node.input]
        makers = [quantizer(reading, step) for step in steps]
        for maker, name in zip(makers, node.input, strict=True):
            convolution = fusible(reading, maker.data) if maker and all(makers) and reading.sole_reader(name) else None
            if maker is not None and convolution is not None:
                yield finding(
                    "residual-pairs",
                    place(node),
                    f"both inputs have a pair, so that the addition does not fuse into {place(convolution)!r}",
                    f"take the pair of {maker.where!r} out; the skip keeps its own",
                )
                break


def quantizer(reading: QdqGraph, step: QdqNode | None) -> QdqNode | None:
    """The QuantizeLinear before a DequantizeLinear."""
    before = None if step is None or step.quantizes else reading.before(step.data)
    return before if before is not None and before.quantizes else None


def concat_scales(reading: QdqGraph) -> Iterator[Finding]:
    """Concatenations before a QuantizeLinear whose inputs have unequal scales, or only some of which have one."""
    for node in reading.graph.node:
        names = [name for name in node.input if name not in reading.constants]
        if node.op_type != "Concat" or not quantizers_behind(reading, node.output[0]):
            continue
        steps = [step for name in names if (step := reading.before(name)) is not None and not step.quantizes]
        scales = {key for step in steps if (key := scale_key(step)) is not None}
        if steps and len(steps) < len(names):
            told = f"{len(steps)} of {len(names)} inputs have Q/DQ"
            yield finding("concat-scales", place(node), told, "give all the same scale, or quantize the result alone")
        elif len(scales) > 1:
            told = f"its {len(names)} inputs have {len(scales)} scales ({spread(steps)}), which are converted to one"
            yield finding("concat-scales", place(node), told, "give all the same scale, or quantize the result alone")


def quantizers_behind(reading: QdqGraph, name: str) -> list[QdqNode]:
    """The QuantizeLinear nodes that read a tensor."""
    found = (reading.steps.get(node.output[0]) for node, k in reading.readers.get(name, ()) if k == 0)
    return [step for step in found if step is not None and step.quantizes]


def scale_key(step: QdqNode) -> bytes | None:
    """What two scales are equal by; None where a scale is not known."""
    return None if step.scale is None else np.asarray(step.scale, np.float64).ravel().tobytes()


def spread(steps: list[QdqNode]) -> str:
    """`0.01 … 0.2`."""
    values = sorted({float(step.scale.ravel()[0]) for step in steps if step.scale is not None and step.scale.size})
    return f"{values[0]:.4g} … {values[-1]:.4g}" if values else ""


def commuting_scales(reading: QdqGraph) -> Iterator[Finding]:
    """Operators that only move values, with one scale before and another behind."""
    for node in reading.graph.node:
        before = reading.before(node.input[0]) if node.op_type in KEEPING else None
        if before is None or before.quantizes:
            continue
        for behind in quantizers_behind(reading, node.output[0]):
            if scale_key(before) != scale_key(behind) and None not in (scale_key(before), scale_key(behind)):
                told = f"{node.op_type} has scale {spread([before])} before it and {spread([behind])} behind it"
                yield finding("commuting-scales", place(node), told, "give both the scale of its input")


def repeated_pairs(reading: QdqGraph) -> Iterator[Finding]:
    """Activations that are quantized more than once."""
    for tensor, groups in quantized_groups(reading).items():
        if len(groups) > 1:
            firsts = [group[0] for group in groups]
            told = f"{tensor!r} is quantized with {len(groups)} scales ({spread(firsts)})"
            yield finding("tensor-scales", firsts[0].where, told, "one scale and one pair for all that read it")
        for group in groups:
            for step in group[1:]:
                yield finding(
                    "duplicate-pair",
                    step.where,
                    f"{tensor!r} is quantized again with the scale of {group[0].where!r}",
                    "share one pair",
                    fixable=step.result not in reading.held,
                )


def quantized_groups(reading: QdqGraph) -> dict[str, list[list[QdqNode]]]:
    """Activation → its QuantizeLinear nodes, equal ones together."""
    found: dict[str, dict[tuple[object, ...], list[QdqNode]]] = {}
    for step in reading.steps.values():
        known = step.scale is not None and (step.zero is not None or not step.zero_name)
        if step.quantizes and known and step.data not in reading.constants:
            found.setdefault(step.data, {}).setdefault(parameters(step), []).append(step)
    return {tensor: list(groups.values()) for tensor, groups in found.items()}


def parameters(step: QdqNode) -> tuple[object, ...]:
    """What two nodes of one tensor compute the same by."""
    zero = 0 if step.zero is None or not step.zero.any() else step.zero.tobytes()
    rest = tuple(sorted((a.name, a.i) for a in step.node.attribute if a.name != "axis"))
    return scale_key(step), zero, step.stored, step.scale_type, step.axis if step.per_channel else None, rest


def coarse_weights(reading: QdqGraph) -> Iterator[Finding]:
    """Weights with one scale of which channels have hardly any levels left."""
    for carrier in reading.carriers:
        for step in carrier.dequantize:
            if step.result not in reading.constants or step.scale is None or step.scale.size != 1:
                continue
            for node, k in reading.readers.get(step.result, ()):
                levels = channel_levels(reading, carrier, node, k) if node.op_type in WEIGHTED and k < 2 else None
                few = 0 if levels is None else int(((levels > 0) & (levels < FEW_LEVELS)).sum())
                if levels is not None and few:
                    yield finding(
                        "weights-per-tensor",
                        place(node),
                        f"one scale for all weights: {few} of {levels.size} output channels have fewer than"
                        f" {FEW_LEVELS} of 127 levels",
                        "quantize weights per channel (onnxruntime: per_channel=True)",
                    )


def channel_levels(reading: QdqGraph, carrier: QuantizedTensor, node: onnx.NodeProto, k: int) -> Array | None:
    """max|w|/scale of every output channel; None where the weights are not stored, or a vector."""
    step = carrier.quantize or carrier.dequantize[0]
    values = reading.values(carrier.quantize.data if carrier.quantize else carrier.name)
    if (
        values is None
        or values.ndim < 2
        or step.scale is None
        or not (np.isfinite(step.scale) & (step.scale > 0)).all()
    ):
        return None
    axis = weight_axis(node, k, values.ndim)
    if carrier.quantize:
        found = np.abs(values.astype(np.float64)) / float(step.scale.ravel()[0])
    else:
        found = np.abs(values.astype(np.float64) - (0 if step.zero is None else float(step.zero.ravel()[0])))
    levels: Array = found.max(axis=tuple(d for d in range(values.ndim) if d != axis), initial=0.0)
    return levels


PLACEMENT: tuple[Callable[[QdqGraph], Iterator[Finding]], ...] = (
    half_quantized,
    blocked_fusions,
    residual_pairs,
    concat_scales,
    commuting_scales,
    repeated_pairs,
    coarse_weights,
)
