"""How a network is run does not change what is counted: slices, passes, threads, orders, shards."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

import quantkit
from quantkit import CalibrateOptions, DataOptions, HistogramMode
from quantkit.backends.session import FakeSession
from quantkit.calibration.memory_plan import MemoryPlan
from quantkit.calibration.streaming_pass import CheckpointPlan, PassHooks, StreamingPass, new_collectors
from quantkit.data.streams import StreamFeed
from quantkit.progress import NoProgress
from quantkit.statistics import Origin, Statistics, statistics_bytes
from quantkit.values import Batch, ModelInput
from tests.support.networks import BUNDLED, network

MODEL = str(BUNDLED / "model.onnx")
TENSORS = ("x", "double", "relu", "zero")


def activations(feeds: Batch) -> Batch:
    """A network of which every sample's values depend on that sample alone."""
    x = feeds["x"]
    return {"double": x * np.float32(2), "relu": np.maximum(x, 0), "zero": np.zeros_like(x)}


def observed(batches: list[np.ndarray[Any, Any]], mode: HistogramMode, size: int, runners: int, split: int) -> bytes:
    """The statistics file of a run over `batches`; `split` cuts the tensors into two passes."""
    passes = (TENSORS[:split], TENSORS[split:]) if 0 < split < len(TENSORS) else (TENSORS,)
    plan = MemoryPlan(size, passes, runners, 0)
    feed = StreamFeed(lambda: [{"x": b} for b in batches], [ModelInput("x", "float32", (None, 2, 8))], None)
    collectors = new_collectors(plan, {"x": [1], "relu": [-1]}, mode)
    seen = StreamingPass(feed, plan, collectors, CheckpointPlan(), NoProgress(), PassHooks()).observe(
        lambda number: FakeSession(activations, passes[number])
    )
    origin = Origin(
        model="m", data=seen.identity.content, samples=seen.samples, histogram=mode, backend="fake", slice=0
    )
    parts = [c.statistics({}, origin) for c in seen.collectors]
    merged = Statistics(
        {n: h for p in parts for n, h in p.histograms.items()}, tuple(v for p in parts for v in p.channels), {}, origin
    )
    return statistics_bytes(merged)


@st.composite
def datasets(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """Up to 24 samples [2, 8] whose sizes differ, some of them zero."""
    seed = draw(st.integers(0, 2**32 - 1))
    count = draw(st.integers(1, 24))
    rng = np.random.default_rng(seed)
    sizes = rng.choice([0.0, 1e-6, 0.5, 1.0, 1.0, 8.0, 3e4], size=(count, 1, 1))
    return np.asarray(np.round(rng.normal(size=(count, 2, 8)), 1) * sizes, dtype=np.float32)


def cut(samples: np.ndarray[Any, Any], sizes: random.Random) -> list[np.ndarray[Any, Any]]:
    """The samples in batches of random sizes."""
    batches, start = [], 0
    while start < len(samples):
        stop = start + sizes.randint(1, 7)
        batches.append(samples[start:stop])
        start = stop
    return batches


@given(datasets(), st.randoms(use_true_random=False), st.integers(1, 8), st.integers(1, 3), st.integers(0, 4))
def test_slices_passes_and_threads_change_nothing(
    samples: np.ndarray[Any, Any], sizes: random.Random, size: int, runners: int, split: int
) -> None:
    batches = cut(samples, sizes)
    for mode in HistogramMode:
        assert observed(batches, mode, size, runners, split) == observed(batches, mode, 100, 1, 0)


@given(datasets(), st.randoms(use_true_random=False))
def test_invariant_statistics_know_no_order_and_no_batches(samples: np.ndarray[Any, Any], sizes: random.Random) -> None:
    shuffled = samples[np.random.default_rng(sizes.randint(0, 99)).permutation(len(samples))]
    whole = observed([samples], HistogramMode.INVARIANT, 100, 1, 0)
    assert observed(cut(shuffled, sizes), HistogramMode.INVARIANT, 2, 2, 2) == whole


def test_shards_merge_to_the_whole(place: Path) -> None:
    def run(data: str, output: str, **options: Any) -> None:
        chosen = CalibrateOptions(histogram=HistogramMode.INVARIANT, data=DataOptions(**options))
        quantkit.calibrate("net/model.onnx", data, output=output, options=chosen)

    for digit in range(10):
        shutil.copytree(f"imgs/{digit}", f"shard{digit % 3}/{digit}")
    run("imgs", "whole.calib")
    run("imgs", "shuffled.calib", shuffle=True, seed=3, batch_size=7)
    for k in range(3):
        run(f"shard{k}", f"s{k}.calib", batch_size=5 + k)
    quantkit.merge([place / f"s{k}.stats.safetensors" for k in (2, 0, 1)], place / "merged")
    whole = (place / "whole.stats.safetensors").read_bytes()
    assert (place / "merged").read_bytes() == whole
    assert (place / "shuffled.stats.safetensors").read_bytes() == whole


def test_shards_that_left_out_the_same_broken_file_have_no_sample_in_common(place: Path) -> None:
    for part in range(2):
        shutil.copytree(f"imgs/{part}", f"shard{part}")
        (place / f"shard{part}/broken.png").write_bytes(b"")
        data = DataOptions(skip_corrupt=True)
        options = CalibrateOptions(histogram=HistogramMode.INVARIANT, data=data)
        quantkit.calibrate("net/model.onnx", f"shard{part}", output=f"s{part}.calib", options=options)
    quantkit.merge(["s0.stats.safetensors", "s1.stats.safetensors"], place / "merged")
    with pytest.raises(quantkit.QuantkitError, match=r"^merged and s1.stats.safetensors have .* samples in common"):
        quantkit.merge(["merged", "s1.stats.safetensors"], place / "again")
    with pytest.raises(quantkit.QuantkitError, match="own source"):
        quantkit.merge(["merged", "s1.stats.safetensors"], place / "merged", force=True)


def test_shards_that_hold_equal_images_merge_to_the_whole_if_that_is_allowed(place: Path) -> None:
    options = CalibrateOptions(histogram=HistogramMode.INVARIANT)
    for part in range(2):
        shutil.copytree(f"imgs/{part}", f"all/{part}")
        shutil.copy(next(Path("imgs/2").iterdir()), f"all/{part}/equal{part}.png")
        quantkit.calibrate("net/model.onnx", f"all/{part}", output=f"s{part}.calib", options=options)
    quantkit.calibrate("net/model.onnx", "all", output="whole.calib", options=options)
    shards = ["s0.stats.safetensors", "s1.stats.safetensors"]
    with pytest.raises(quantkit.QuantkitError, match=" have 1 of ") as refusal:
        quantkit.merge(shards, "merged")
    assert "--allow-duplicates" in refusal.value.remedy
    quantkit.merge(shards, "merged", allow_duplicates=True)
    assert Path("merged").read_bytes() == Path("whole.stats.safetensors").read_bytes()


def test_little_memory_gives_the_same_table_to_the_last_digits(place: Path) -> None:
    def run(memory: int) -> quantkit.Calibration:
        return quantkit.calibrate("net/model.onnx", "imgs", rules="minmax", options=CalibrateOptions(max_memory=memory))

    much, little = run(1 << 30), run(1 << 16)
    assert list(much.table.scales) == list(little.table.scales)
    np.testing.assert_allclose(list(much.table.scales.values()), list(little.table.scales.values()), rtol=1e-5)


def test_batches_stay_whole_where_the_network_mixes_samples(place: Path) -> None:
    mixing = network(
        [
            helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
            helper.make_node("Sub", ["x", "mean"], ["y"]),
        ],
        {"x": ["N", 4]},
        ["y"],
    )
    onnx.save(mixing, "mixing.onnx")
    data = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32) + 10
    made = quantkit.calibrate("mixing.onnx", [{"x": data}], rules="minmax")
    assert any("mixes the samples" in note for note in made.notes)
    expected = np.abs(data - data.mean(axis=0)).max()
    assert made.table.amax("y") == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("sizes", [(8, 32), (1, 32), (40,)])
def test_batches_of_any_size_stay_whole_where_samples_are_mixed(sizes: tuple[int, ...], place: Path) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
        helper.make_node("ArgMax", ["y"], ["best"], axis=1),
    ]
    model = network(nodes, {"x": ["N", 4]}, ["best"])
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    onnx.save(model, "mixing.onnx")
    rng = np.random.default_rng(0)
    batches = [(10 * rng.normal(size=(n, 4))).astype(np.float32) for n in sizes]
    made = quantkit.calibrate("mixing.onnx", [{"x": b} for b in batches], rules="minmax")
    expected = max(float(np.abs(b - b.mean(axis=0)).max()) for b in batches)
    assert made.table.amax("y") == pytest.approx(expected, rel=1e-5)


def test_a_stream_that_differs_from_pass_to_pass_is_refused(place: Path) -> None:
    rng = np.random.default_rng(0)

    def batches() -> list[dict[str, Any]]:
        return [{"image": rng.normal(size=(4, 1, 16, 16)).astype(np.float32)}]

    with pytest.raises(quantkit.QuantkitError, match="different data in each pass"):
        quantkit.calibrate("net/model.onnx", batches, options=CalibrateOptions(max_memory=1 << 16))


def test_several_inputs_come_by_name(place: Path) -> None:
    model = network([helper.make_node("Add", ["a", "b"], ["sum"])], {"a": ["N", 4], "b": ["N", 4]}, ["sum"])
    onnx.save(model, "two.onnx")
    (place / "batches").mkdir()
    for i in range(3):
        np.savez(
            place / f"batches/{i}.npz", b=np.full((2, 4), -3.0 - i, np.float32), a=np.full((2, 4), 1.0, np.float32)
        )
    made = quantkit.calibrate("two.onnx", "batches", rules="minmax")
    assert {n: made.table.amax(n) for n in made.table.scales} == pytest.approx({"a": 1, "b": 5, "sum": 4}, rel=1e-6)
    assert made.batches == 3


def test_the_learning_curve_ends_at_all_images(place: Path) -> None:
    made = quantkit.calibrate(
        "net/model.onnx",
        "imgs",
        rules="minmax",
        options=CalibrateOptions(data=DataOptions(batch_size=4), learning_curve=True),
    )
    assert made.curve is not None
    assert [p.samples for p in made.curve.points] == [4, 8, 16, 32, 60]
    assert made.curve.points[-1].settled == 1.0
    deviations = [p.median for p in made.curve.points]
    assert deviations == sorted(deviations, reverse=True), "MinMax thresholds only grow"


def test_a_fixed_batch_is_filled_or_refused(place: Path) -> None:
    model = onnx.load("net/model.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 8
    onnx.save(model, "net/fixed.onnx")
    made = quantkit.calibrate("net/fixed.onnx", "imgs")
    assert (made.samples, made.batches) == (56, 7)
    assert any("56 of 60" in note for note in made.notes)
    with pytest.raises(quantkit.QuantkitError, match="do not fill batches of 8"):
        quantkit.calibrate("net/fixed.onnx", "imgs", options=CalibrateOptions(data=DataOptions(limit=30)))


def test_a_float16_network_is_watched(place: Path) -> None:
    half = onnx.TensorProto.FLOAT16
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Cast", ["y"], ["z"], to=onnx.TensorProto.FLOAT)],
        "half",
        [helper.make_tensor_value_info("x", half, ["N", 4])],
        [helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["N", 4])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "half.onnx")
    made = quantkit.calibrate("half.onnx", [{"x": np.array([[1, -2, 3, -4]], np.float16)}], rules="minmax")
    assert {n: made.table.amax(n) for n in made.table.scales} == pytest.approx({"x": 4, "y": 3, "z": 3}, rel=1e-6)
