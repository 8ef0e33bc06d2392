"""Engines that run, with data that is followed through copies and streams."""

from __future__ import annotations

from pathlib import Path

import checked
import host_cuda
import numpy as np
import pytest

from quantkit.backends.tensorrt.building import build_engine
from quantkit.backends.tensorrt.engine import Engine, unusable
from quantkit.backends.tensorrt.messages import Messages
from quantkit.backends.tensorrt.options import BuildOptions, Precision
from quantkit.backends.tensorrt.shapes import parse_shapes
from quantkit.backends.tensorrt.timing import latencies, throughput
from quantkit.errors import BackendError, DataError
from quantkit.graph import load_model

pytestmark = pytest.mark.usefixtures("folder")


def engine(network: str = "float") -> Engine:
    model = load_model(f"{network}.onnx")
    ranges = parse_shapes(["x=1:4:8"], model.inputs)
    return Engine(build_engine(model, BuildOptions(precision=Precision.FP32), ranges).plan, "an.engine")


def batches(*sizes: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [{"x": rng.normal(size=(size, 2, 4, 4)).astype(np.float32)} for size in sizes]


def test_what_an_engine_tells() -> None:
    with engine() as e:
        assert [(b.name, b.dtype, b.shape, b.is_input) for b in e.bindings] == [
            ("x", "float32", (-1, 2, 4, 4), True),
            ("y", "float32", (-1, 2, 4, 4), False),
        ]
        assert e.inputs[0].shape == (None, 2, 4, 4)
        assert e.outputs == ("y",)
        assert (e.least("x"), e.most("x")) == ((1, 2, 4, 4), (8, 2, 4, 4))
        assert e.memory == 4096


@pytest.mark.parametrize("streams", [1, 2, 3])
def test_batches(streams: int) -> None:
    given = batches(4, 4, 8, 2, 2, 4)
    with engine() as e:
        for batch, outputs in zip(given, e.run(given, streams=streams), strict=True):
            np.testing.assert_array_equal(outputs["y"], batch["x"] * 2)


@pytest.mark.parametrize("streams", [1, 2])
def test_an_output_whose_shape_depends_on_the_data(streams: int) -> None:
    given = batches(4, 8, 1, 4)
    given[2]["x"][:] = -1.0  # nothing comes out
    with engine("late") as e:
        for batch, outputs in zip(given, e.run(given, streams=streams), strict=True):
            np.testing.assert_array_equal(outputs["y"], batch["x"][batch["x"] > 0])


def test_nothing_comes_out_of_the_first_batch() -> None:
    with engine("late") as e:
        (outputs,) = e.run([{"x": -np.ones((1, 2, 4, 4), np.float32)}])
    assert outputs["y"].shape == (0,)


def test_a_run_that_nobody_finishes() -> None:
    with engine() as e:
        running = e.run(batches(4, 4, 4), streams=2)
        next(running)
        running.close()


def test_a_batch_beyond_the_profile() -> None:
    with engine() as e, pytest.raises(DataError, match="does not take 9x2x4x4, it was built for 1x2x4x4 … 8x2x4x4"):
        list(e.run(batches(4, 9)))


def test_times() -> None:
    with engine() as e, e.lane() as lane:
        lane.submit(batches(4)[0])
        lane.outputs()
        assert lane.milliseconds > 0


def test_one_profile_serves_several_contexts() -> None:
    """8.6 has to be told so when the engine is built."""
    with engine() as e, e.lane(), e.lane(), e.lane():
        pass


def test_a_version_compatible_engine() -> None:
    """Such a plan holds code that runs on the host, which TensorRT refuses unless it is told to trust it."""
    model = load_model("float.onnx")
    options = BuildOptions(precision=Precision.FP32, version_compatible=True)
    made = build_engine(model, options, parse_shapes(["x=1:4:8"], model.inputs))
    with pytest.raises(BackendError, match=r"an\.engine is version compatible: .* without being allowed") as caught:
        Engine(made.plan, "an.engine")
    assert "--allow-code" in caught.value.remedy
    Path("an.engine").write_bytes(made.plan)
    with pytest.raises(BackendError, match="without being allowed"):
        Engine.load(Path("an.engine"))
    (batch,) = batches(4)
    for trusted in (Engine(made.plan, "x", allow_code=True), Engine.load(Path("an.engine"), allow_code=True)):
        with trusted as e:
            (outputs,) = e.run([batch])
        np.testing.assert_array_equal(outputs["y"], batch["x"] * 2)


@pytest.mark.parametrize("said", ["IRuntime::setEngineHostCodeAllowed", "see engine_host_code_allowed"])
def test_how_tensorrt_may_word_its_refusal(said: str) -> None:
    messages = Messages()
    messages.take("ERROR", f"API Usage Error ({said})")
    assert "is version compatible" in unusable(messages, "an.engine").problem


def test_only_engines_that_are_trusted_may_bring_code(world: checked.World) -> None:
    before = set(checked.TOUCHED)
    checked.TOUCHED.clear()
    try:
        plan = engine()
        plan.close()
        assert "Runtime.engine_host_code_allowed (write)" not in checked.TOUCHED
    finally:
        checked.TOUCHED.update(before)


def test_no_room_for_a_context() -> None:
    plan = engine()
    checked.WORLD.contexts = 1
    with plan as e, pytest.raises(BackendError, match="makes no further context"):
        list(e.run(batches(4, 4), streams=2))


def test_no_plan() -> None:
    with pytest.raises(BackendError, match="is not a TensorRT engine"):
        Engine(b"something", "an.engine")


def test_tensorrt_that_does_not_start() -> None:
    checked.reset(starts=False)
    with pytest.raises(BackendError, match="CUDA initialization failure"):
        Engine(b"something", "an.engine")


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(BackendError, match="there is no GPU 3"):
        Engine(b"something", "an.engine", device=3)


def test_no_memory() -> None:
    with engine() as e:
        host_cuda.STATE.room = 600
        with pytest.raises(BackendError, match="the GPU has no"):
            list(e.run(batches(4, 4)))


@pytest.mark.parametrize("network", ["float", "late"])
def test_no_memory_for_a_larger_batch(network: str) -> None:
    with engine(network) as e:
        host_cuda.STATE.room = 600
        with pytest.raises(BackendError, match=r"the GPU has no|could not run"):
            list(e.run(batches(1, 4)))


@pytest.mark.parametrize("streams", [1, 2])
def test_measuring(streams: int) -> None:
    with engine() as e:
        assert all(time > 0 for time in latencies(e, 4, seconds=0.01, graph=False))
        assert throughput(e, 4, streams=streams, seconds=0.01, graph=False) > 0
