"""Weights behind a node that only passes them on (Identity), and calibration tables that hold the scale 0.

The network has the layers of ResNet-50 (He et al. 2016, table 1, BatchNormalization folded) with patterned weights: it
shows times and kernels, not accuracy. torch exports such an Identity for every shared or merely equal initializer.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from acceptance.networks import of_engine, timed
from acceptance.scripts import LOGGER, builder, trt
from quantkit import CalibrateOptions, DataOptions, calibrate, quantize
from quantkit.backends.tensorrt.engine import Engine
from quantkit.backends.tensorrt.options import BuildOptions, Precision
from quantkit.engines.build import build
from quantkit.errors import QuantkitError
from quantkit.quantization.options import QuantizeOptions

STAGES = ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2))
PATTERN = np.random.default_rng(0).normal(size=1021).astype(np.float32)
BATCHES = (1, 32)
LEVEL = 1
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


def behind_identity(model: Path, path: Path) -> Path:
    """Write a copy whose weights of two and more dimensions pass through an Identity."""
    proto = copy.deepcopy(onnx.load(model))
    nodes = []
    for weight in (w for w in proto.graph.initializer if len(w.dims) > 1):
        nodes.append(helper.make_node("Identity", [f"{weight.name}.stored"], [weight.name], f"{weight.name}.passed"))
        weight.name = f"{weight.name}.stored"
    nodes.extend(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    onnx.save(proto, path)
    return path


def build_as_is(model: Path, path: Path, *, int8: bool) -> Path:
    """Build an engine with TensorRT alone, from the file as it is."""
    network = builder().create_network(1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))
    parser = trt.OnnxParser(network, LOGGER)
    assert parser.parse_from_file(str(model)), parser.get_error(0)
    config = builder().create_builder_config()
    config.builder_optimization_level = LEVEL
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    for flag in (trt.BuilderFlag.FP16, *([trt.BuilderFlag.INT8] if int8 else [])):
        config.set_flag(flag)
    profile = builder().create_optimization_profile()
    least, most = ((n, 3, SIDE, SIDE) for n in (BATCHES[0], BATCHES[-1]))
    profile.set_shape("image", least, most, most)
    config.add_optimization_profile(profile)
    path.write_bytes(bytes(builder().build_serialized_network(network, config)))
    return path


def timings(path: Path) -> dict[str, dict[str, float]]:
    """Latencies of an engine at both batches."""
    with Engine.load(path) as engine:
        return {str(batch): timed(engine, batch) for batch in BATCHES}


def behind_a_node(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each engine's figures: FP16 and Q/DQ; plain, behind Identity, and by TensorRT alone."""
    plain = residual_network(folder / "plain.onnx")
    behind = behind_identity(plain, folder / "behind.onnx")
    images = np.random.default_rng(1).normal(size=(16, 3, SIDE, SIDE)).astype(np.float32)
    np.save(folder / "images.npy", images)
    made = {}
    for name, model in (("plain", plain), ("behind Identity", behind)):
        options = CalibrateOptions(data=DataOptions(batch_size=8), tensorrt_version="8.6.0", backend="onnxruntime")
        calibrate(model, folder / "images.npy", preprocess="raw", output=model.with_suffix(".calib"), options=options)
        made[name] = folder / f"{model.stem}.int8.onnx"
        quantize(model, made[name], statistics=model.with_suffix(".stats.safetensors"),
                 options=QuantizeOptions(tensorrt_version="8.6.0"))  # fmt: skip
    for kind, models in (("FP16", {"plain": plain, "behind Identity": behind}), ("Q/DQ", made)):
        precision = Precision.FP16 if kind == "FP16" else Precision.INT8
        for name, model in models.items():
            options = BuildOptions(precision=precision, level=LEVEL, shapes=("image=1:32:32",))
            engine = build(model, options=options, output=folder / f"{model.stem}.{kind[0]}.engine")
            yield (
                f"{kind}, {name}",
                of_engine(engine)
                | {
                    "kernels": len(engine.record.layers),
                    "latency_ms": timings(engine.path),
                },
            )
        stored = behind if kind == "FP16" else behind_identity(made["plain"], folder / "behind.qdq.onnx")
        engine_path = build_as_is(stored, folder / f"as-is.{kind[0]}.engine", int8=kind != "FP16")
        yield f"{kind}, behind Identity, TensorRT alone", {"latency_ms": timings(engine_path)}


def zero_branch(path: Path) -> Path:
    """Write a network in which one branch is zero, as where the last scale of a block is 0."""
    net = Layers()
    x = net.node("Relu", [net.conv("image", "stem", (3, 128, 3), 2)], "stem.r")
    zero = net.node("Relu", [net.conv(x, "branch", (128, 128, 3), gain=0.0)], "branch.r")
    net.weights[-1].CopyFrom(numpy_helper.from_array(np.zeros(128, np.float32), "branch.b"))
    behind = net.conv(zero, "behind", (128, 128, 1))
    total = net.node("Relu", [net.node("Add", [net.conv(x, "main", (128, 128, 3)), behind], "sum")], "sum.r")
    net.conv(total, "y", (128, 64, 1))
    return save(path, net, ("image", [8, 3, 64, 64]), ("y", [8, 64, 32, 32]))


def zero_scales(folder: Path) -> dict[str, Any]:
    """Build the network with a zero branch from TensorRT's own table, from the CPU's, and as Q/DQ."""
    model = zero_branch(folder / "zero.onnx")
    np.savez(folder / "zero.npz", image=np.random.default_rng(2).normal(size=(16, 3, 64, 64)).astype(np.float32))
    found: dict[str, Any] = {}
    for backend in ("tensorrt", "onnxruntime"):
        table = folder / f"zero.{backend}.calib"
        options = CalibrateOptions(data=DataOptions(batch_size=8), tensorrt_version="8.6.0", backend=backend)
        outcome: dict[str, Any] = {}
        try:
            made = calibrate(model, folder / "zero.npz", output=table, options=options)
            outcome["zero_scales"] = sorted(name for name, scale in made.table.scales.items() if scale == 0)
            engine = build(
                model, options=BuildOptions(level=LEVEL, fp16=False), table=table, output=table.with_suffix(".engine")
            )
            outcome |= of_engine(engine)
        except QuantkitError as error:
            outcome["error"] = str(error)
        found[f"table by {backend}"] = outcome
    return found


def measured(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the figures as they come."""
    found: dict[str, Any] = {"scale 0": zero_scales(folder)}
    yield found
    engines: dict[str, Any] = {}
    for name, figures in behind_a_node(folder):
        engines[name] = figures
        yield found | {"behind a node": engines}
