"""Scales of weights that float16 lacks, in the channels of a tensor whose other scales it has.

Channels that training has switched off have weights of 1e-30, and scales to match. A pair that stayed float32 for them
would end INT8 for the whole operator, behind a Cast. Their scale becomes the least normal number of float16: the
rounding error of such a channel is then still no larger than that of the channel with the largest scale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from quantkit.graph.model import DTYPES, Model
from quantkit.graph.weights import weight_values

if TYPE_CHECKING:
    import onnx

    from quantkit.graph.index import GraphIndex
    from quantkit.values import Array

LEAST_NORMAL = 2.0**-14
TINY = float(np.finfo(np.float32).tiny)


def raise_fine_scales(model: Model, proto: onnx.ModelProto, wires: GraphIndex) -> int:
    """Raise scales below 2⁻¹⁴ of weights with several scales to it, in place; return the number of channels.

    Scales that something else reads as well, and scales of weights with zero points, stay as they are.
    """
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    return sum(
        raise_channels(model, tensors, wires, node) for node in wires.nodes if node.op_type == "DequantizeLinear"
    )


def raise_channels(model: Model, tensors: dict[str, onnx.TensorProto], wires: GraphIndex, node: onnx.NodeProto) -> int:
    """Raise the scales of one DequantizeLinear of weights; return the number of channels."""
    from onnx import numpy_helper

    scales, stored, quantize = tensors.get(node.input[1]), tensors.get(node.input[0]), wires.maker(node.input[0])
    paired = quantize is not None and quantize.op_type == "QuantizeLinear" and quantize.input[0] in wires.constants
    readers = [reader for _, reader in wires.uses(node.input[1])]
    if scales is None or DTYPES.get(scales.data_type) != "float32" or len(scales.dims) != 1:
        return 0
    if len(readers) != 1 + paired or (paired and quantize not in readers):
        return 0
    old = weight_values(scales, model)
    fine = (old > TINY) & (old < LEAST_NORMAL)
    if not fine.any() or not (LEAST_NORMAL <= old.max(initial=0.0) < np.inf):
        return 0
    new = np.where(fine, np.float32(LEAST_NORMAL), old)
    if not paired:
        zeros = tensors.get(node.input[2]) if len(node.input) > 2 else None
        if stored is None or DTYPES.get(stored.data_type) != "int8" or len(list(wires.uses(stored.name))) != 1:
            return 0
        if len(node.input) > 2 and node.input[2] and (zeros is None or weight_values(zeros, model).any()):
            return 0
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        values = rescaled(weight_values(stored, model), old / new, axis)
        stored.CopyFrom(numpy_helper.from_array(values, stored.name))
    scales.CopyFrom(numpy_helper.from_array(new, scales.name))
    return int(fine.sum())


def rescaled(values: Array, factors: Array, axis: int) -> Array:
    """Return stored integers [.., C, ..] for scales that are larger by 1/factors [C]."""
    shape = [1] * values.ndim
    shape[axis] = -1
    result: Array = np.rint(values * factors.reshape(shape)).astype(values.dtype)
    return result
