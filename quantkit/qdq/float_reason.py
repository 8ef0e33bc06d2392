"""Reasons why an operator that could be quantized stays float, and their remedies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from quantkit.graph.index import GraphIndex
from quantkit.graph.model import DTYPES

LEAST = {"float32": 2.0**-126, "float16": 2.0**-14}
"""The least normal numbers: smaller scales lose digits, and TensorRT rejects them."""


class FloatCause(Enum):
    """The kind of a reason; its value is how the reason begins."""

    EXCLUDED = "excluded"
    CONV_ONLY = "not a convolution (policy conv-only)"
    PRODUCT = "a product of two activations (attention)"
    WEIGHTS_FROM_DATA = "its weights depend on the data"
    GATE = "part of a gate with single values for each channel (squeeze and excite)"
    DETECTION_HEAD = "detection head"
    FLOAT_OUTPUT = "TensorRT 8 has no INT8 kernel for it that writes float"
    SLOW_KERNEL = "TensorRT 8 has only a slow INT8 kernel for it"
    FP8_KERNEL = "TensorRT has no FP8 kernel for it"
    SLOWER = "INT8 is not faster here:"
    WEIGHTS_COMPUTED = "its weights are computed by other operators"
    WEIGHTS_SPARSE = "its weights are stored as a sparse tensor"
    WEIGHTS_NOT_FLOAT = "its weights are not float"
    WEIGHTS_EMPTY = "its weights are empty"
    WEIGHTS_VECTOR = "its weights are a vector"
    NOT_FLOAT = "not float"
    NO_SCALE = "no scale"
    ZERO = "zero throughout the calibration data"
    TINY_SCALE = "its scale is too small for the type of the tensor"
    INTEGERS = "quantized for onnxruntime, as"
    UNSUPPORTED = "quantkit does not quantize"
    NESTED = "inside"


REMEDIES: Mapping[FloatCause, str] = {
    FloatCause.EXCLUDED: "leave out some of the exclusions",
    FloatCause.CONV_ONLY: "leave out --policy conv-only",
    FloatCause.FP8_KERNEL: "quantize it to INT8 (--type int8, or --int8 NODE); for TensorRT-RTX, which has such "
    "kernels, name it: --include",
    FloatCause.SLOWER: "ship the FP16 engine on that GPU, or quantize without its profile",
    FloatCause.WEIGHTS_COMPUTED: "export the model with its weights as initializers",
    FloatCause.WEIGHTS_SPARSE: "export the model with dense weights",
    FloatCause.WEIGHTS_NOT_FLOAT: "use the network with float32 or float16 weights",
    FloatCause.WEIGHTS_EMPTY: "leave it float: it computes nothing",
    FloatCause.WEIGHTS_VECTOR: "leave it float: TensorRT needs matrices",
    FloatCause.NOT_FLOAT: "export the network in float32 or float16",
    FloatCause.NO_SCALE: "use scales of this network: quantkit calibrate MODEL makes them",
    FloatCause.ZERO: "check the data: give samples on which that tensor is not zero",
    FloatCause.TINY_SCALE: "check the data: such a tensor is nearly zero throughout",
    FloatCause.INTEGERS: "use the float network that this one was made from",
    FloatCause.UNSUPPORTED: "export the network with Conv, ConvTranspose, Gemm or MatMul in its place",
    FloatCause.NESTED: "export the network without control flow, or functions of another opset, around its operators",
}
OTHER_REMEDY = "--policy all, or --include, quantizes operators that stay float"


@dataclass(frozen=True, slots=True)
class FloatReason:
    """Why an operator stays float. detail: completes the cause; names: tensors or nodes that it is about."""

    cause: FloatCause
    detail: str = ""
    names: str = ""

    @property
    def summary(self) -> str:
        """The reason without names, the same for all operators that it holds for."""
        return f"{self.cause.value} {self.detail}".rstrip()

    def __str__(self) -> str:
        """Return the reason in words, for example `no scale: x`."""
        return f"{self.summary}: {self.names}" if self.names else self.summary


def remedy_for(reasons: Iterable[FloatReason]) -> str:
    """Return what helps against the most frequent cause among the reasons, of which there is at least one."""
    cause, _ = Counter(reason.cause for reason in reasons).most_common(1)[0]
    return REMEDIES.get(cause, OTHER_REMEDY)


def int8_obstacle(
    wires: GraphIndex, number: int, places: tuple[int, ...], scales: Mapping[str, float]
) -> FloatReason | None:
    """Return why an operator cannot be quantized under any policy; None if it can."""
    names = [wires.nodes[number].input[k] for k in places]
    constant = [name for name in names if name in wires.constants]
    if unread := [name for name in constant if name not in wires.weights]:
        makers = [wires.maker(name) for name in unread]
        sparse = any(maker is None or maker.op_type == "Constant" for maker in makers)
        return FloatReason(FloatCause.WEIGHTS_SPARSE if sparse else FloatCause.WEIGHTS_COMPUTED)
    if any(DTYPES.get(wires.weights[name].data_type) not in ("float32", "float16") for name in constant):
        return FloatReason(FloatCause.WEIGHTS_NOT_FLOAT)
    if any(0 in wires.weights[name].dims for name in constant):
        return FloatReason(FloatCause.WEIGHTS_EMPTY)
    if any(len(wires.weights[name].dims) < 2 for name in constant):
        return FloatReason(FloatCause.WEIGHTS_VECTOR)
    others = [name for name in names if wires.types.get(name, "float32") not in ("float32", "float16")]
    if others:
        return FloatReason(FloatCause.NOT_FLOAT, names=", ".join(others))
    activations = [name for name in names if name not in wires.constants]
    for cause, lacking in (
        (FloatCause.NO_SCALE, [name for name in activations if name not in scales]),
        (FloatCause.ZERO, [name for name in activations if scales.get(name) == 0.0]),
    ):
        if lacking:
            return FloatReason(cause, names=", ".join(lacking))
    tiny = [name for name in activations if scales[name] < LEAST[wires.types.get(name, "float32")]]
    return FloatReason(FloatCause.TINY_SCALE, names=", ".join(tiny)) if tiny else None
