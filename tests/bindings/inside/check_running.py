"""Engines that run, with data that is followed through copies and streams."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path

import checked
import host_cuda
import numpy as np
import pytest

from quantkit.backends.tensorrt import engine as engine_module
from quantkit.backends.tensorrt import messages
from quantkit.backends.tensorrt.build import build_engine
from quantkit.backends.tensorrt.engine import Engine, unusable_plan
from quantkit.backends.tensorrt.layer_profile import profile_engine
from quantkit.backends.tensorrt.messages import Messages
from quantkit.backends.tensorrt.options import BuildOptions, Precision
from quantkit.backends.tensorrt.shapes import parse_shapes
from quantkit.backends.tensorrt.timing import measure_latencies, measure_throughput, timing_inputs
from quantkit.engines.round_times import measure_rounds
from quantkit.errors import BackendError, DataError, UsageError
from quantkit.graph import load_model

pytestmark = pytest.mark.usefixtures("folder")


def plan_of(network: str) -> bytes:
    model = load_model(f"{network}.onnx")
    ranges = parse_shapes(["x=1:4:8"], model.inputs)
    return build_engine(model, BuildOptions(precision=Precision.FP32), ranges).plan


def engine(network: str = "float") -> Engine:
    return Engine(plan_of(network), "an.engine")


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
    with engine() as e, pytest.raises(DataError, match="does not accept 9x2x4x4; it is built for 1x2x4x4 … 8x2x4x4"):
        list(e.run(batches(4, 9)))


def test_one_profile_serves_several_contexts() -> None:
    """8.6 has to be told so when the engine is built."""
    with engine() as e, e.lane(), e.lane(), e.lane():
        pass


def test_a_version_compatible_engine() -> None:
    """Such a plan holds code that runs on the host, which TensorRT refuses unless it is told to trust it."""
    model = load_model("float.onnx")
    options = BuildOptions(precision=Precision.FP32, version_compatible=True)
    made = build_engine(model, options, parse_shapes(["x=1:4:8"], model.inputs))
    with pytest.raises(BackendError, match=r"an\.engine is version compatible: .* needs permission to run") as caught:
        Engine(made.plan, "an.engine")
    assert "--allow-code" in caught.value.remedy
    Path("an.engine").write_bytes(made.plan)
    with pytest.raises(BackendError, match="needs permission to run"):
        Engine.load(Path("an.engine"))
    (batch,) = batches(4)
    for trusted in (Engine(made.plan, "x", allow_code=True), Engine.load(Path("an.engine"), allow_code=True)):
        with trusted as e:
            (outputs,) = e.run([batch])
        np.testing.assert_array_equal(outputs["y"], batch["x"] * 2)


@pytest.mark.parametrize("said", ["IRuntime::setEngineHostCodeAllowed", "see engine_host_code_allowed"])
def test_how_tensorrt_may_word_its_refusal(said: str) -> None:
    heard = Messages()
    heard.take("ERROR", f"API Usage Error ({said})")
    assert "is version compatible" in unusable_plan(heard, "an.engine").problem


def test_only_engines_that_are_trusted_may_bring_code() -> None:
    plan = plan_of("float")  # which looks into its own engine, and trusts it
    before = set(checked.TOUCHED)
    checked.TOUCHED.clear()
    try:
        Engine(plan, "an.engine").close()
        assert "Runtime.engine_host_code_allowed (write)" not in checked.TOUCHED
    finally:
        checked.TOUCHED.update(before)


def test_no_room_for_a_context() -> None:
    plan = engine()
    checked.WORLD.contexts = 1
    with plan as e:
        with pytest.raises(BackendError, match="cannot create another context"):
            list(e.run(batches(4, 4), streams=2))
        gc.collect()
        assert host_cuda.left() == [], "the stream of the lane that failed"


def test_no_plan() -> None:
    with pytest.raises(BackendError, match="is not a TensorRT engine"):
        Engine(b"something", "an.engine")
    assert messages._LISTENING == []


@pytest.mark.parametrize("name", ["init_libnvinfer_plugins", "device_memory", "Engine._binding"])
def test_an_engine_that_cannot_be_made_leaves_nothing(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    plan = plan_of("float")
    there: list[weakref.ref[object]] = []

    def fail(*_: object) -> None:
        there.extend(weakref.ref(o) for o in gc.get_objects() if isinstance(o, checked.Runtime | checked.ICudaEngine))
        raise KeyboardInterrupt

    where = checked.MODULE if name == "init_libnvinfer_plugins" else engine_module
    monkeypatch.setattr(where, name, fail) if "." not in name else monkeypatch.setattr(Engine, "_binding", fail)
    with pytest.raises(KeyboardInterrupt):
        Engine(plan, "an.engine")
    gc.collect()
    assert messages._LISTENING == []
    assert [ref() for ref in there if ref() is not None] == []
    assert host_cuda.left() == []


@pytest.mark.parametrize("streams", [0, -1])
def test_streams_are_at_least_one(streams: int) -> None:
    with engine() as e, pytest.raises(UsageError, match=f"{streams} streams"):
        list(e.run(batches(4), streams=streams))


@pytest.mark.parametrize("names", [["y"], ["x", "z"], []])
def test_inputs_that_are_missing_or_unknown(names: list[str]) -> None:
    (batch,) = batches(4)
    with engine() as e, pytest.raises(DataError, match=f"an.engine takes x, but the batch holds {', '.join(names)}"):
        list(e.run([dict.fromkeys(names, batch["x"])]))


@pytest.mark.parametrize("dtype", ["complex64", "U3", "M8[s]"])
def test_types_that_do_not_fit(dtype: str) -> None:
    with (
        engine() as e,
        pytest.raises(DataError, match=r"input 'x' of an\.engine is float32, but the batch holds") as caught,
    ):
        list(e.run([{"x": np.zeros((4, 2, 4, 4), dtype)}]))
    assert caught.value.remedy == "give float32"


@pytest.mark.parametrize("dtype", ["float16", "float64", "int64", "uint8", "bool"])
def test_types_that_fit(dtype: str) -> None:
    x = (np.arange(128).reshape(4, 2, 4, 4) % 2).astype(dtype)
    with engine() as e:
        (outputs,) = e.run([{"x": x}])
        assert e.fitted({"x": x.tolist()}).keys() == {"x"}
    np.testing.assert_array_equal(outputs["y"], x.astype(np.float32) * 2)


def test_numbers_with_a_fraction_do_not_become_integers() -> None:
    with engine() as e:
        e.bindings = tuple(replace(b, dtype="int32") for b in e.bindings)
        assert e.fitted({"x": np.zeros(1, np.int64)})["x"].dtype == np.int64
        with pytest.raises(DataError, match="is int32, but the batch holds float32"):
            e.fitted({"x": np.zeros(1, np.float32)})


def test_what_is_loaded_runs_again() -> None:
    (batch,) = batches(4)
    with engine() as e, e.lane() as lane:
        with e.device.current():
            lane.load(batch)
            lane.replay()
            lane.replay()
        np.testing.assert_array_equal(lane.outputs()["y"], batch["x"] * 2)


@pytest.mark.parametrize(
    ("network", "graphs", "captures"),
    [
        ("float", True, True),
        ("float", False, False),
        ("late", True, False),
        ("late", False, False),
    ],
)
def test_what_runs_as_a_graph(network: str, graphs: bool, captures: bool) -> None:
    with engine(network) as e, e.lane(graphs=graphs) as lane:
        with e.device.current():
            lane.load(batches(4)[0])
        assert lane.captures is captures


def test_an_output_that_depends_on_the_data_has_no_latency_with_a_graph() -> None:
    with engine("late") as e:
        assert measure_latencies(e, 4, seconds=0.01, graph=True) == []
        assert measure_latencies(e, 4, seconds=0.01, graph=False)


def test_inputs_are_made_up_and_uploaded(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []
    run = checked.IExecutionContext.execute_async_v3

    def look(context: checked.IExecutionContext, stream_handle: int) -> bool:
        host_cuda.STATE.streams[stream_handle].synchronize()
        seen.append(host_cuda.at(context._addresses["x"], 4 * 32 * 4).view(np.float32).copy())
        return run(context, stream_handle)

    monkeypatch.setattr(checked.IExecutionContext, "execute_async_v3", look)
    with engine() as e:
        wanted = timing_inputs(e, 4)["x"]
        measure_latencies(e, 4, seconds=0.01, graph=False)
        measure_throughput(e, 4, streams=2, seconds=0.01, graph=False)
        np.testing.assert_array_equal(timing_inputs(e, 4)["x"], wanted)
    assert wanted.shape == (4, 2, 4, 4)
    assert wanted.std() > 0.1
    assert all((x == wanted.ravel()).all() for x in seen)


def test_tensorrt_that_does_not_start() -> None:
    checked.reset(starts=False)
    with pytest.raises(BackendError, match="CUDA initialization failure"):
        Engine(b"something", "an.engine")


@pytest.mark.parametrize("number", [3, 1, -1])
def test_a_device_that_is_not_there(number: int) -> None:
    with pytest.raises(BackendError, match=f"there is no GPU {number}") as caught:
        Engine(b"something", "an.engine", device=number)
    assert "0 … 0" in caught.value.remedy
    assert messages._LISTENING == []


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
        assert all(time > 0 for time in measure_latencies(e, 4, seconds=0.01, graph=False))
        assert measure_throughput(e, 4, streams=streams, seconds=0.01, graph=False) > 0


def test_layers_are_timed_one_by_one() -> None:
    with engine() as e:
        layers = profile_engine(e, 4, ["/conv", "b", "/add", "y"], runs=3)
    assert [(x.name, x.nodes, x.milliseconds) for x in layers] == [
        ("/conv", ("/conv",), 0.25),
        ("b", ("b",), 0.5),
        ("b_reshape", ("b_reshape",), 0.75),
        ("/add", ("/add",), 1.0),
        ("y", ("y",), 1.25),
    ]
    assert [(t.dtype, t.shape) for t in (*layers[0].inputs, *layers[0].outputs)] == [("FP32", (1, 2, 4, 4))] * 2


def test_engines_are_timed_in_rounds() -> None:
    paths = {name: Path(f"{name}.engine") for name in ("float", "two")}
    for name, path in paths.items():
        path.write_bytes(plan_of(name))
    said: list[str] = []
    found = measure_rounds(paths, (1, 4, 9), rounds=3, seconds=0.001, say=said.append)
    assert {name: {batch: len(times.rounds) for batch, times in of.items()} for name, of in found.items()} == {
        "float": {1: 3, 4: 3},
        "two": {1: 3, 4: 3},
    }, "no engine takes batches of 9"
    assert all(times.median > 0 for of in found.values() for times in of.values())
    assert said[:2] == ["timing 2 engines at batch 1, round 1 of 3", "timing 2 engines at batch 1, round 2 of 3"]
