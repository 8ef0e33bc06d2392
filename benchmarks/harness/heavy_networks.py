"""Networks of many megabytes and few activations, for measuring memory: their weights are a pattern, no knowledge."""

from __future__ import annotations

import sys
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

PERIOD = 1021
"""Values after which weights repeat, from another place in every layer, so that no two are equal."""
WIDTH = {"products": 2048, "convolutions": 256}


class HeavyNetwork:
    """A network [N, 3, 32, 32] → [N, 10] in progress."""

    def __init__(self) -> None:
        self.pattern = np.random.default_rng(0).standard_normal(PERIOD).astype(np.float32)
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.bytes = 0
        self.last = "image"

    def add(self, operator: str, shape: tuple[int, ...], **attributes: Any) -> None:
        """Add an operator with weights of a shape, and a Relu."""
        from onnx import helper, numpy_helper

        number = len(self.weights) // 2
        values = np.resize(np.roll(self.pattern, 13 * number), prod(shape)).reshape(shape)
        values *= np.float32((2 / prod(shape[1:])) ** 0.5)
        bias = np.zeros(shape[0], np.float32)
        self.weights += [numpy_helper.from_array(values, f"w{number}"), numpy_helper.from_array(bias, f"b{number}")]
        self.bytes += values.nbytes + bias.nbytes
        inputs = [self.last, f"w{number}", f"b{number}"]
        self.nodes.append(helper.make_node(operator, inputs, [f"y{number}"], f"layer{number}", **attributes))
        self.nodes.append(helper.make_node("Relu", [f"y{number}"], [f"r{number}"], f"relu{number}"))
        self.last = f"r{number}"

    def convolution(self, inputs: int, outputs: int, stride: int) -> None:
        """Add a 3×3 convolution."""
        self.add("Conv", (outputs, inputs, 3, 3), strides=[stride] * 2, pads=[1] * 4, kernel_shape=[3, 3])

    def flatten(self, *, pool: bool) -> None:
        """Make vectors of images, by their means or of all values."""
        from onnx import helper

        if pool:
            self.nodes.append(helper.make_node("GlobalAveragePool", [self.last], ["pooled"], "pool"))
            self.last = "pooled"
        self.nodes.append(helper.make_node("Flatten", [self.last], ["flat"], "flatten"))
        self.last = "flat"

    def save(self, path: Path) -> None:
        """Write the network, whose last layer is the output."""
        import onnx
        from onnx import TensorProto, helper

        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 32, 32])
        scores = helper.make_tensor_value_info(self.nodes[-2].output[0], TensorProto.FLOAT, ["N", 10])
        graph = helper.make_graph(self.nodes[:-1], "heavy", [image], [scores], self.weights)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def write_heavy_network(kind: str, size: int, path: Path) -> None:
    """Write a network of at least `size` bytes: a few convolutions, then layers of one width. kind: see `WIDTH`."""
    network, width = HeavyNetwork(), WIDTH[kind]
    outputs = 128 if kind == "products" else width
    for inputs, channels in ((3, 64), (64, 128), (128, outputs)):
        network.convolution(inputs, channels, 2)
    if kind == "products":
        network.flatten(pool=False)
    while network.bytes < size:
        if kind == "products":
            network.add("Gemm", (width, width), transB=1)
        else:
            network.convolution(width, width, 1)
    if kind == "convolutions":
        network.flatten(pool=True)
    network.add("Gemm", (10, width), transB=1)
    network.save(path)


if __name__ == "__main__":
    write_heavy_network(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
