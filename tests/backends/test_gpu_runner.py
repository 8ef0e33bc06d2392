"""--provider cuda end to end, with a GPU that is this process: equal statistics, few copies, and clear refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import quantkit
from quantkit.backends.onnxruntime.gpu_runner import GpuRunner
from quantkit.backends.onnxruntime.inference import OnnxRuntimeSession
from quantkit.errors import BackendError, UsageError
from quantkit.graph import load_model
from quantkit.values import Batch
from tests.support.fake_cuda import install_fake_cuda


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """Two convolutions' worth of layers, with an input that is no float and a tensor whose shape depends on values."""
    random = np.random.default_rng(0)
    weights = [
        helper.make_tensor("w", TensorProto.FLOAT, (4, 3, 3, 3), random.normal(size=108).astype(np.float32)),
        helper.make_tensor("m", TensorProto.FLOAT, (4, 5), random.normal(size=20).astype(np.float32)),
        helper.make_tensor("axes", TensorProto.INT64, (2,), [2, 3]),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("ReduceMean", ["r", "axes"], ["g"], keepdims=0),
        helper.make_node("MatMul", ["g", "m"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])], weights,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path = tmp_path / "network.onnx"
    onnx.save(model, path)
    return path


def batches(count: int = 3, size: int = 4) -> list[Batch]:
    random = np.random.default_rng(1)
    return [{"x": ((1 + k) * random.normal(size=(size, 3, 6, 6))).astype(np.float32)} for k in range(count)]


@pytest.mark.parametrize("histogram", ["tensorrt", "invariant"])
def test_statistics_are_those_of_the_cpu(network: Path, monkeypatch: pytest.MonkeyPatch, histogram: str) -> None:
    def calibrated(provider: str) -> Any:
        return quantkit.calibrate(
            network, batches(), provider=provider, backend="onnxruntime", preprocess="raw", histogram=histogram,
            max_memory=8000,
        )  # fmt: skip

    here = calibrated("cpu").statistics
    opened = install_fake_cuda(monkeypatch)
    there = calibrated("cuda:1").statistics
    assert opened[0].given["device_id"] == "1"
    assert opened[0].given["use_tf32"] == "0"
    assert there.origin.backend.endswith(" cuda")
    assert list(there.histograms) == list(here.histograms)
    for name, histogram_ in here.histograms.items():
        np.testing.assert_array_equal(there.histograms[name].counts, histogram_.counts, err_msg=name)
        assert there.histograms[name].range == histogram_.range
    for left, right in zip(there.channels, here.channels, strict=True):
        np.testing.assert_array_equal(left.sums, right.sums)
        np.testing.assert_array_equal(left.minimum, right.minimum)


def open_runner(network: Path, *, fixed_shapes: bool) -> tuple[GpuRunner, Any]:
    session = OnnxRuntimeSession(load_model(network), ("c", "r", "g", "y"), provider="cuda", fixed_shapes=fixed_shapes)
    runner = session.resident()
    assert runner is not None
    return runner, session._session


def test_outputs_are_bound_once_while_no_shape_changes(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_fake_cuda(monkeypatch)
    runner, session = open_runner(network, fixed_shapes=True)
    first = dict(runner(batches()[0]))
    assert dict(runner(batches()[1])) == first
    assert len(session.log) == 5
    np.testing.assert_array_equal(runner.fetch("x"), batches()[1]["x"])
    np.testing.assert_array_equal(runner.fetch("r"), np.maximum(runner.fetch("c"), 0))
    smaller = runner(batches(size=2)[0])
    assert smaller["c"].shape == (2, 4, 6, 6)
    assert len(session.log) == 10


def test_outputs_whose_shapes_may_change_are_bound_for_every_run(
    network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_fake_cuda(monkeypatch)
    runner, session = open_runner(network, fixed_shapes=False)
    runner(batches()[0])
    runner(batches()[1])
    assert sum("output" in line for line in session.log) == 8


def test_a_provider_that_does_not_start_is_no_cpu(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_fake_cuda(monkeypatch, starts=False)
    with pytest.raises(BackendError, match="could not start its provider 'cuda'"):
        OnnxRuntimeSession(load_model(network), ("c",), provider="cuda")


def test_without_cupy_nothing_is_counted_on_the_cpu(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from quantkit.gpu_counting import cupy_device

    real = cupy_device.refuse_without_cupy
    install_fake_cuda(monkeypatch)
    monkeypatch.setattr(cupy_device, "refuse_without_cupy", real)
    monkeypatch.setattr(cupy_device, "find_spec", lambda _: None)
    with pytest.raises(BackendError, match="CuPy, which is not installed") as raised:
        quantkit.calibrate(network, batches(), provider="cuda", backend="onnxruntime", preprocess="raw")
    assert "cupy-cuda13x" in str(raised.value.remedy)


@pytest.mark.parametrize("provider", ["cpu:1", "cuda:", "cuda:x", "cuda:-1", "rocm"])
def test_other_providers_are_refused(network: Path, provider: str) -> None:
    with pytest.raises(UsageError, match="unknown provider"):
        quantkit.calibrate(network, batches(), provider=provider, preprocess="raw")


def test_operators_that_the_provider_lacks_are_told(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = install_fake_cuda(monkeypatch)
    session = OnnxRuntimeSession(load_model(network), ("c", "y"), provider="cuda")
    if not hasattr(opened[0]._session, "get_provider_graph_assignment_info"):
        pytest.skip("this onnxruntime does not tell where operators run")
    assert session.notes == (
        "2 operators run on the CPU, which onnxruntime's CUDA provider does not have: Conv, MatMul",
    )
    assert OnnxRuntimeSession(load_model(network), (), provider="cuda").notes == ()
    assert OnnxRuntimeSession(load_model(network), ("c",)).notes == ()
