"""Weights behind a node that only passes them on (Identity), and calibration tables that hold the scale 0.

The network has the layers of ResNet-50 (`residual`). torch exports such an Identity for every shared or merely equal
initializer.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from acceptance.networks import of_engine, timed
from acceptance.residual import SIDE, Layers, residual_network, save
from acceptance.scripts import LOGGER, builder, trt
from quantkit import CalibrateOptions, DataOptions, calibrate, quantize
from quantkit.backends.tensorrt.engine import Engine
from quantkit.backends.tensorrt.options import BuildOptions, Precision
from quantkit.engines.build import build
from quantkit.errors import QuantkitError
from quantkit.quantization.options import QuantizeOptions

BATCHES = (1, 32)
LEVEL = 1


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
            made = calibrate(model, folder / "zero.npz", rule="entropy", output=table, options=options)
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
