"""Statistics of shards, merged, are those of the run that was not divided, byte for byte."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from PIL import Image

import quantkit
from quantkit import CalibrateOptions, DataOptions
from quantkit.calibration.job import prepare_job
from quantkit.calibration.shard_run import ShardCollector
from quantkit.errors import DataError, ShardError, UsageError
from quantkit.histogram import HistogramMode
from quantkit.progress import NoProgress
from quantkit.sharding import Shard
from quantkit.statistics import Statistics, parse_statistics, statistics_bytes
from quantkit.statistics.shard_merging import merge_shards
from tests.support.networks import network


def collected(model: Any, data: Any, options: CalibrateOptions, count: int) -> list[tuple[str, Statistics]]:
    """All shards of a calibration, read back from the bytes of their files."""
    collector = ShardCollector(prepare_job(model, data, "minmax", None, None, options))
    found = [collector.collect(Shard(index, count), NoProgress()).statistics for index in range(count)]
    return [(f"{k}", parse_statistics(statistics_bytes(part), f"{k}")) for k, part in enumerate(found)]


def invariant(**reading: Any) -> CalibrateOptions:
    """Options of a run that can be divided."""
    return CalibrateOptions(histogram="invariant", backend="onnxruntime", data=DataOptions(**reading))


def small_network() -> onnx.ModelProto:
    """A convolution, and the places of its large values, which a sample may not have at all."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["conv"]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("ReduceMax", ["relu"], ["most"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Greater", ["most", "limit"], ["large"]),
        helper.make_node("Compress", ["relu", "large"], ["kept"], axis=0),
        helper.make_node("Sqrt", ["conv"], ["root"]),
    ]
    weights = {
        "w": np.linspace(-1, 1, 4 * 3, dtype=np.float32).reshape(4, 3, 1, 1),
        "limit": np.float32(6.0),
    }
    return network(nodes, {"x": ["N", 3, 4, 4]}, ["kept", "root"], weights)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    samples=st.integers(1, 23),
    batch=st.integers(1, 5),
    count=st.sampled_from([1, 2, 3, 7]),
    memory=st.sampled_from([1 << 30, 700]),
    mode=st.sampled_from(HistogramMode),
)
def test_any_number_of_shards_in_any_order_gives_the_bytes_of_one_run(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    samples: int,
    batch: int,
    count: int,
    memory: int,
    mode: HistogramMode,
) -> None:
    count = min(count, -(-samples // batch))
    path = tmp_path_factory.mktemp("data") / "x.npy"
    drawn = np.random.default_rng(seed)
    spread = drawn.choice([0.0, 0.5, 3.0], (samples, 1, 1, 1))
    np.save(path, np.abs(drawn.normal(size=(samples, 3, 4, 4)) * spread).astype(np.float32))
    options = CalibrateOptions(
        histogram=mode, backend="onnxruntime", max_memory=memory, data=DataOptions(batch_size=batch)
    )
    model = small_network()
    whole = quantkit.calibrate(model, path, options=options).statistics
    parts = collected(model, path, options, count)
    random.Random(seed).shuffle(parts)
    assert whole is not None
    assert statistics_bytes(merge_shards(parts)) == statistics_bytes(whole)


def pictures(folder: Path, names: Iterable[str]) -> Path:
    """Small images of different colours."""
    folder.mkdir()
    for number, name in enumerate(names):
        Image.new("RGB", (5, 5), (number * 9 % 256, 90, number)).save(folder / name)
    return folder


def test_samples_that_cannot_be_read_are_left_out_as_in_one_run(tmp_path: Path) -> None:
    data = pictures(tmp_path / "images", [f"{k:02}.png" for k in range(17)])
    for name in ("03.png", "04.png", "11.png"):
        (data / name).write_bytes(b"no image")
    options = invariant(batch_size=3, skip_corrupt=True)
    model = small_network()
    whole = quantkit.calibrate(model, data, options=options).statistics
    parts = collected(model, data, options, 4)
    assert whole is not None
    assert statistics_bytes(merge_shards(parts)) == statistics_bytes(whole)
    skipped = [name for _, part in parts if part.shard for name in part.shard.skipped]
    assert [text.split(":")[0] for text in skipped] == ["03.png", "04.png", "11.png"]


def test_a_sample_that_would_move_others_to_another_batch_is_refused(tmp_path: Path) -> None:
    data = pictures(tmp_path / "images", [f"{k}.png" for k in range(8)])
    (data / "5.png").write_bytes(b"no image")
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    model = network(nodes, {"x": [2, 3, 4, 4]}, ["y"])
    with pytest.raises(DataError, match=r"^5\.png: .* fixed batch size\n"):
        collected(model, data, invariant(skip_corrupt=True), 2)


def test_equal_samples_in_two_shards_count_twice_as_in_one_run(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((6, 3, 4, 4), np.float32))
    options = invariant(batch_size=2)
    whole = quantkit.calibrate(small_network(), tmp_path / "x.npy", options=options).statistics
    parts = collected(small_network(), tmp_path / "x.npy", options, 3)
    assert whole is not None
    assert statistics_bytes(merge_shards(parts)) == statistics_bytes(whole)


def test_shards_of_another_run_are_refused(tmp_path: Path) -> None:
    data = pictures(tmp_path / "images", [f"{k}.png" for k in range(8)])
    parts = collected(small_network(), data, invariant(batch_size=2), 4)
    others = collected(small_network(), data, invariant(batch_size=2, limit=8), 4)
    with pytest.raises(ShardError, match=r"limit \(8, and none\)"):
        merge_shards([*parts[:3], ("foreign", others[3][1])])
    with pytest.raises(ShardError, match="1 of 4 shards is missing"):
        merge_shards(parts[:3])
    whole = quantkit.calibrate(small_network(), data, options=invariant(batch_size=2)).statistics
    assert whole is not None
    with pytest.raises(ShardError, match="whole is no shard"):
        merge_shards([*parts, ("whole", whole)])


def test_data_without_a_known_number_of_batches_are_refused() -> None:
    batches = [{"x": np.ones((1, 3, 4, 4), np.float32)}] * 4
    with pytest.raises(DataError, match=r"not known\n.*\.npz"):
        collected(small_network(), batches, invariant(), 2)


def test_more_shards_than_batches_are_refused(tmp_path: Path) -> None:
    data = pictures(tmp_path / "images", [f"{k}.png" for k in range(8)])
    with pytest.raises(UsageError, match="2 batches cannot be divided into 3 shards"):
        collected(small_network(), data, invariant(batch_size=4), 3)
