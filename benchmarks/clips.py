"""Where TensorRT computes a Clip before Q otherwise than the file says: small networks, engine against onnxruntime.

    python benchmarks/clips.py        needs TensorRT and a GPU; writes results/clips.json

Every network ends in … → Clip → Q → DQ → Conv with INT8 weights; what differs is what makes the Clip's input. Figures
are the SQNR of the engine's output in dB, onnxruntime computing the same file with Q and DQ in float. `settings_db` in
the results is of the first network, built otherwise.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

RESULTS = Path(__file__).parent / "results" / "clips.json"
SIX = 6 / 127
SHAPE = (4, 32, 32, 32)


class Graph:
    """A network in the making; its input is `x`. Methods return the name of what they make."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, values: Any) -> str:
        """A stored tensor."""
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """A node with one output."""
        result = f"{operator.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [result], f"{result}_node", **attributes))
        return result

    def pair(self, tensor: str, scale: Any, axis: int | None = None) -> str:
        """QuantizeLinear and DequantizeLinear."""
        along = {} if axis is None else {"axis": axis}
        scales = self.constant(np.asarray(scale, np.float32))
        zeros = self.constant(np.zeros(np.shape(scale), np.int8))
        quantized = self.add("QuantizeLinear", tensor, scales, zeros, **along)
        return self.add("DequantizeLinear", quantized, scales, zeros, **along)

    def conv(self, tensor: str, *, int8: bool = True, channels: int = 32, size: int = 1, gain: float = 1.0) -> str:
        """A convolution to 32 channels, with INT8 weights or float ones."""
        values = self.random.normal(size=(32, channels, size, size)) * gain / np.sqrt(channels * size * size)
        weights = self.constant(values.astype(np.float32))
        if int8:
            weights = self.pair(weights, np.abs(values).max((1, 2, 3)) / 127, 0)
        bias = self.constant(self.random.normal(size=32).astype(np.float32))
        return self.add("Conv", tensor, weights, bias, kernel_shape=[size, size], pads=[size // 2] * 4)

    def float_conv(self) -> str:
        """A float convolution of the input."""
        return self.conv("x", int8=False, gain=3.0)

    def int8_conv(self, size: int = 1) -> str:
        """An INT8 convolution of the input."""
        return self.conv(self.pair("x", 4 / 127), size=size, gain=3.0)

    def clip(self, tensor: str, low: float | None = 0.0, high: float | None = 6.0) -> str:
        """Clip."""
        bounds = ["" if bound is None else self.scalar(bound) for bound in (low, high)]
        return self.add("Clip", tensor, *(bounds if bounds[1] else bounds[:1]))

    def scalar(self, value: float) -> str:
        """A stored number."""
        return self.constant(np.float32(value))

    def end(self, tensor: str, scale: float = SIX) -> str:
        """Q, DQ, and an INT8 convolution."""
        return self.conv(self.pair(tensor, scale))

    def model(self, result: str) -> onnx.ModelProto:
        """The network with the output `result`."""
        graph = helper.make_graph(
            self.nodes,
            "clips",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
            [helper.make_tensor_value_info(result, TensorProto.FLOAT, None)],
            self.constants,
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        return onnx.shape_inference.infer_shapes(made, strict_mode=True)


def residual(g: Graph) -> str:
    """A Clip behind the addition of an INT8 convolution and its skip."""
    skip = g.pair("x", 4 / 127)
    return g.clip(g.add("Add", g.conv(skip, gain=3.0), skip))


def read_twice(g: Graph) -> str:
    """A Clip that a float operator reads as well."""
    clip = g.clip(g.int8_conv())
    return g.add("Add", g.end(clip), g.add("Sigmoid", clip))


def hard_swish(g: Graph, made: str) -> str:
    """x·Clip(x + 3, 0, 6)/6."""
    gate = g.clip(g.add("Add", made, g.scalar(3.0)))
    return g.end(g.add("Div", g.add("Mul", made, gate), g.scalar(6.0)), 9 / 127)


def pooled(g: Graph, tensor: str) -> str:
    """MaxPool."""
    return g.add("MaxPool", tensor, kernel_shape=[2, 2], strides=[2, 2])


NETWORKS: Mapping[str, Callable[[Graph], str]] = {
    "Conv": lambda g: g.end(g.clip(g.float_conv())),
    "Add of Conv": lambda g: g.end(g.clip(g.add("Add", g.float_conv(), g.float_conv()))),
    "Mul of the input": lambda g: g.end(g.clip(g.add("Mul", "x", g.scalar(3.0)))),
    "MaxPool of the input, 0 … 1": lambda g: g.end(g.clip(pooled(g, "x"), 0.0, 1.0), 1 / 127),
    "Conv, −1 … 1": lambda g: g.end(g.clip(g.float_conv(), -1.0, 1.0), 1 / 127),
    "Conv, MaxPool behind": lambda g: g.end(pooled(g, g.clip(g.float_conv()))),
    "Conv, Reshape behind": lambda g: g.end(
        g.add("Reshape", g.clip(g.float_conv()), g.constant(np.int64([4, 32, 16, 64])))
    ),
    "Conv, … 6 alone": lambda g: g.end(g.clip(g.float_conv(), None, 6.0)),
    "Conv, 0 … alone": lambda g: g.end(g.clip(g.float_conv(), 0.0, None)),
    "Conv, Relu and Min": lambda g: g.end(g.add("Min", g.add("Relu", g.float_conv()), g.scalar(6.0))),
    "Conv, GlobalAveragePool behind": lambda g: g.end(g.add("GlobalAveragePool", g.clip(g.float_conv())), 3 / 127),
    "Conv, hard swish": lambda g: hard_swish(g, g.float_conv()),
    "INT8 Conv": lambda g: g.end(g.clip(g.int8_conv(3))),
    "INT8 Conv, −1 … 1": lambda g: g.end(g.clip(g.int8_conv(), -1.0, 1.0), 1 / 127),
    "INT8 Conv, MaxPool behind": lambda g: g.end(pooled(g, g.clip(g.int8_conv()))),
    "INT8 Conv, read in float too": read_twice,
    "INT8 Conv and skip": lambda g: g.end(residual(g)),
    "INT8 Conv, Add of constants": lambda g: g.end(
        g.clip(g.add("Add", g.int8_conv(), g.constant(g.random.normal(size=(1, 32, 1, 1)).astype(np.float32))))
    ),
    "INT8 Conv, Mul": lambda g: g.end(g.clip(g.add("Mul", g.int8_conv(), g.scalar(1.7)))),
    "INT8 Conv, Concat": lambda g: g.conv(
        g.pair(g.clip(g.add("Concat", g.int8_conv(), g.int8_conv(), axis=1)), SIX), channels=64
    ),
    "INT8 Conv, hard swish": lambda g: hard_swish(g, g.int8_conv()),
}
"""What makes the Clip's input, and what is told of the rest → network."""


def network(name: str) -> onnx.ModelProto:
    """One of the networks."""
    graph = Graph()
    return graph.model(NETWORKS[name](graph))


def measured(path: Path, **settings: Any) -> float:
    """SQNR of the engine of a file, in dB."""
    from quantkit.backends.session import open_session
    from quantkit.backends.tensorrt.build import build_engine
    from quantkit.backends.tensorrt.engine import Engine
    from quantkit.backends.tensorrt.options import BuildOptions, Precision
    from quantkit.backends.tensorrt.shapes import parse_shapes
    from quantkit.graph import load_model

    model = load_model(path)
    batch = {"x": np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)}
    (result,) = model.outputs
    exact = dict(open_session(model, [result]).runner()(batch))[result].astype(np.float64)
    options = BuildOptions(precision=Precision.INT8, timing_cache=False, **({"level": 1} | settings))
    made = build_engine(model, options, parse_shapes((), model.inputs))
    with Engine(made.plan, path.name) as engine:
        error = exact - next(iter(engine.run([batch])))[result]
    return round(float(10 * np.log10((exact**2).sum() / max((error**2).sum(), 1e-30))), 1)


def main() -> None:
    """Measure all networks."""
    from quantkit.backends.tensorrt.build import kernels_loaded
    from quantkit.backends.tensorrt.device import open_device
    from quantkit.backends.tensorrt.versions import library_version, tensorrt

    found = {}
    settings = {
        "level 3": {"level": 3},
        "without FP16": {"fp16": False},
        "without FP16 and TF32": {"fp16": False, "tf32": False},
    }
    with tempfile.TemporaryDirectory() as folder, kernels_loaded():
        for name in NETWORKS:
            path = Path(folder) / "clip.onnx"
            onnx.save(network(name), path)
            found[name] = measured(path)
            print(f"{found[name]:6.1f} dB  {name}", file=sys.stderr)
        onnx.save(network("Conv"), path)
        otherwise = {name: measured(path, **chosen) for name, chosen in settings.items()}
    machine = {
        "gpu": open_device().name,
        "tensorrt": library_version(tensorrt()),
        "date": date.today().isoformat(),
    }
    document = {"machine": machine, "sqnr_db": found, "settings_db": otherwise}
    RESULTS.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
