"""A network of real size without its training: the layers of ResNet-50 with patterned weights.

He et al. 2016, table 1, BatchNormalization folded. It shows times and kernels, not accuracy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

STAGES = ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2))
PATTERN = np.random.default_rng(0).normal(size=1021).astype(np.float32)
SIDE = 224


class Layers:
    """A network that grows by convolutions; weights are repetitions of one pattern, so that files compress."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, name: str, shape: tuple[int, ...], gain: float) -> str:
        """Add a weight."""
        values = np.resize(PATTERN, shape) * np.float32(gain)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node, and return its output."""
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def conv(self, source: str, name: str, sizes: tuple[int, int, int], stride: int = 1, gain: float = 1.0) -> str:
        """Add a convolution with a bias. sizes: channels in, channels out, kernel."""
        inner, outer, kernel = sizes
        w = self.weight(f"{name}.w", (outer, inner, kernel, kernel), gain * (2 / (inner * kernel**2)) ** 0.5)
        b = self.weight(f"{name}.b", (outer,), 0.01)
        return self.node(
            "Conv", [source, w, b], name, kernel_shape=[kernel] * 2, pads=[kernel // 2] * 4, strides=[stride] * 2
        )


def bottleneck(net: Layers, x: str, name: str, inner: int, width: int, stride: int) -> str:
    """Add a bottleneck block of `width` channels."""
    a = net.node("Relu", [net.conv(x, f"{name}.a", (inner, width, 1))], f"{name}.ra")
    b = net.node("Relu", [net.conv(a, f"{name}.c", (width, width, 3), stride)], f"{name}.rc")
    c = net.conv(b, f"{name}.d", (width, 4 * width, 1), gain=0.3)
    skip = x if inner == 4 * width else net.conv(x, f"{name}.s", (inner, 4 * width, 1), stride)
    return net.node("Relu", [net.node("Add", [c, skip], f"{name}.sum")], f"{name}.out")


def residual_network(path: Path) -> Path:
    """Write the network of real size."""
    net = Layers()
    x = net.node("Relu", [net.conv("image", "stem", (3, 64, 7), 2)], "stem.r")
    x = net.node("MaxPool", [x], "pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    inner = 64
    for stage, (blocks, width, stride) in enumerate(STAGES):
        for block in range(blocks):
            x = bottleneck(net, x, f"s{stage}.{block}", inner, width, stride if block == 0 else 1)
            inner = 4 * width
    x = net.node("Flatten", [net.node("GlobalAveragePool", [x], "mean")], "flat")
    fc = net.weight("fc.w", (1000, inner), inner**-0.5), net.weight("fc.b", (1000,), 0.01)
    net.node("Gemm", [x, *fc], "out", transB=1)
    return save(path, net, ("image", ["N", 3, SIDE, SIDE]), ("out", ["N", 1000]))


def save(path: Path, net: Layers, source: tuple[str, list[Any]], result: tuple[str, list[Any]]) -> Path:
    """Write a network."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (source, result)]
    graph = helper.make_graph(net.nodes, "network", ends[:1], ends[1:], net.weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
