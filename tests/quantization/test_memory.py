"""Memory of `quantize`: under three times the model, beside what does not depend on its weights."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantkit import calibrate
from quantkit.backends.session import open_session
from quantkit.data import DataOptions
from quantkit.graph import load_model
from quantkit.preprocess import Preprocess
from quantkit.qdq.insert import insert_qdq
from quantkit.qdq.insertion import WeightForm
from quantkit.qdq.stored_weights import with_float_weights
from quantkit.quantization import repair_run
from quantkit.quantization.network_statistics import NetworkSamples
from quantkit.quantization.repair_run import tensor_observer

WIDTH, LAYERS, SAMPLES = 1024, 14, 128
MOST = 2.6
"""Times the size of the model. While it is read, that is the file and its message; then one session at a time, with the
weights as its kernels want them, and a part of them twice while it is opened."""

SCRIPT = """
import json, sys
import quantkit

def resident(field):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

folder, way = sys.argv[1:]
def quantize(name):
    source = {"statistics": f"{folder}/{name}.stats.safetensors"} if way == "statistics" else {
        "data": f"{folder}/samples.npy", "repairs": ("bias",), "threads": 2}
    model, target = f"{folder}/{name}.onnx", f"{folder}/{name}.{way}.onnx"
    made = quantkit.quantize(model, target, tensorrt_version="10.3.0", **source)
    assert way == "statistics" or made.held_out is not None

quantize("small")  # imports, and tables of the rules
idle = resident("VmRSS")
quantize("large")
print(json.dumps([idle, resident("VmHWM")]))
"""


def write_chain(path: Path, layers: int) -> None:
    """Write products [N, 1024] → [N, 1024], one after another; their weights are a pattern."""
    pattern = np.random.default_rng(0).standard_normal(1021).astype(np.float32) / np.float32(WIDTH**0.5)
    nodes, weights = [], []
    for number in range(layers):
        values = np.resize(np.roll(pattern, 13 * number), (WIDTH, WIDTH))
        weights.append(numpy_helper.from_array(values, f"w{number}"))
        nodes.append(helper.make_node("Gemm", [f"x{number}", f"w{number}"], [f"y{number}"], f"layer{number}"))
        nodes.append(helper.make_node("Relu", [f"y{number}"], [f"x{number + 1}"], f"relu{number}"))
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", WIDTH]) for n in ("x0", f"x{layers}")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A large network, a small one, samples for both, and statistics of both."""
    folder = tmp_path_factory.mktemp("memory")
    samples = np.random.default_rng(1).standard_normal((SAMPLES, WIDTH)).astype(np.float32)
    np.save(folder / "samples.npy", samples)
    for name, layers in (("small", 1), ("large", LAYERS)):
        write_chain(folder / f"{name}.onnx", layers)
        calibrate(folder / f"{name}.onnx", folder / "samples.npy", output=folder / f"{name}.calib", limit=16)
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.parametrize("way", ["statistics", "data"])
def test_the_peak_is_under_three_times_the_model(folder: Path, way: str) -> None:
    command = [sys.executable, "-c", SCRIPT, str(folder), way]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    idle, peak = json.loads(done.stdout)
    size = (folder / "large.onnx").stat().st_size
    assert size > 50e6
    assert peak - idle < MOST * size, f"{(peak - idle) / size:.2f} times the model"


@pytest.mark.parametrize(("sliced", "rows"), [(True, 3), (False, 32)])
def test_batches_are_observed_in_slices_where_samples_do_not_mix(
    folder: Path, monkeypatch: pytest.MonkeyPatch, sliced: bool, rows: int
) -> None:
    monkeypatch.setattr(repair_run, "OBSERVED", 3 * 2 * 4 * WIDTH + 1)
    data = NetworkSamples(folder / "samples.npy", Preprocess(), DataOptions(limit=40))
    observe = tensor_observer(load_model(folder / "small.onnx"), data, sliced=sliced)
    batches = list(observe(["x0", "y0"]))
    assert max(len(batch["y0"]) for batch in batches) == rows
    read, made = (np.concatenate([batch[name] for batch in batches]) for name in ("x0", "y0"))
    assert len(read) == 40
    weight = numpy_helper.to_array(load_model(folder / "small.onnx").proto.graph.initializer[0])
    np.testing.assert_allclose(made, read @ weight, rtol=1e-3, atol=1e-4)


def test_float_weights_on_their_grids_compute_what_stored_codes_do(folder: Path) -> None:
    model = load_model(folder / "small.onnx")
    made = {form: insert_qdq(model, {"x0": 0.03}, form=form).proto for form in (WeightForm.FLOAT, WeightForm.INT8)}
    networks = [replace(model, proto=proto, sha256="") for proto in made.values()]
    networks.append(replace(model, proto=with_float_weights(networks[1]), sha256=""))
    assert [node.op_type for node in networks[2].proto.graph.node] == [
        "QuantizeLinear", "DequantizeLinear", "Gemm", "Relu",
    ]  # fmt: skip
    feeds = {"x0": np.load(folder / "samples.npy")[:4]}
    plain, *others = (open_session(each, ["x1"]).runner()(feeds)["x1"].copy() for each in networks)
    for other in others:
        np.testing.assert_array_equal(other, plain)
