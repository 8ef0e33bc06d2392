"""Layers from shards and from workers: the figures of one run, to the last digit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

import quantkit
from quantkit.errors import DataError, Interrupted, ShardError, StaleError, UsageError
from quantkit.qdq.grid import Grid
from quantkit.sensitivity.result import sensitivity_document
from quantkit.sensitivity.tensor_errors import ActivationErrorSums, QuantizedActivation
from tests.support.networks import Command, network
from tests.support.stopping import StopAfterSamples

SAMPLES, BATCH = 26, 3


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of two layers, its statistics, and samples of very different sizes, the last batch not full."""
    folder, drawn = tmp_path_factory.mktemp("divided"), np.random.default_rng(3)
    nodes = [
        helper.make_node("Gemm", ["x", "a"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("Gemm", ["r", "b"], ["y"], "second"),
    ]
    weights = {"a": drawn.normal(size=(6, 8)).astype(np.float32), "b": drawn.normal(size=(8, 4)).astype(np.float32)}
    onnx.save(network(nodes, {"x": ["N", 6]}, ["y"], weights), folder / "model.onnx")
    sizes = 10.0 ** drawn.uniform(-4, 4, (SAMPLES, 1))
    np.savez(folder / "x.npz", x=(sizes * drawn.normal(size=(SAMPLES, 6))).astype(np.float32))
    quantkit.calibrate(folder / "model.onnx", folder / "x.npz", output=folder / "model.calib", backend="onnxruntime")
    return folder


def figures(found: quantkit.Sensitivity) -> Any:
    """Everything that a result holds, but for the duration."""
    return json.dumps(sensitivity_document(found) | {"seconds": 0})


def measured(place: Path, **options: Any) -> str:
    """The figures of a run."""
    given = {"statistics": place / "model.stats.safetensors", "batch_size": BATCH, **options}
    return str(figures(quantkit.layers(place / "model.onnx", data=place / "x.npz", **given)))


def one_shard(place: Path, text: str, folder: Path, **options: Any) -> quantkit.MeasuredShard:
    given = {"statistics": place / "model.stats.safetensors", "batch_size": BATCH, **options}
    return quantkit.layers_shard(place / "model.onnx", place / "x.npz", text, folder, **given)


@pytest.fixture(scope="module")
def whole(place: Path) -> str:
    """The figures of the run that is not divided."""
    return measured(place)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_shards_give_the_figures_of_one_run(place: Path, whole: str, tmp_path: Path, count: int) -> None:
    for index in reversed(range(count)):
        one_shard(place, f"{index}/{count}", tmp_path / "run")
    assert measured(place, merge=tmp_path / "run") == whole
    if count == 2:
        assert measured(place, merge=tmp_path / "run", keep_db=30.0) == measured(place, keep_db=30.0) != whole


def test_workers_give_the_figures_of_one_run_and_the_same_call_goes_on(
    place: Path, whole: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantkit.sensitivity.layers, "SHARD_SAMPLES", BATCH)
    with pytest.raises(Interrupted, match=r"stopped after \d of 8 shards"):
        measured(place, workers=1, parts=tmp_path / "parts", progress=StopAfterSamples(6))
    assert 2 <= len(list((tmp_path / "parts").iterdir())) < 8
    with pytest.raises(StaleError, match="shards of an interrupted run that differs: quantization"):
        measured(place, workers=1, parts=tmp_path / "parts", rule="minmax")
    assert measured(place, workers=1, parts=tmp_path / "parts") == whole


def test_what_does_not_fit_is_refused(place: Path, tmp_path: Path) -> None:
    first = one_shard(place, "0/2", tmp_path / "run")
    assert (first.samples, first.layers, first.reused) == (12, 2, False)
    assert one_shard(place, "0/2", tmp_path / "run").reused
    with pytest.raises(StaleError, match="is of another run: quantization"):
        one_shard(place, "0/2", tmp_path / "run", rule="minmax")
    with pytest.raises(ShardError, match="1 of 2 shards is missing"):
        measured(place, merge=tmp_path / "run")
    one_shard(place, "1/2", tmp_path / "run")
    with pytest.raises(ShardError, match="is of another run: quantization"):
        measured(place, merge=tmp_path / "run", exclude="second")
    other = tmp_path / "run" / "0001-of-0002.layers.safetensors"
    other.write_bytes(other.read_bytes()[:-4])
    with pytest.raises(ShardError, match="is not a shard of layers, or is damaged"):
        measured(place, merge=tmp_path / "run")
    with pytest.raises(UsageError, match="merge= adds up shards"):
        measured(place, merge=tmp_path / "run", workers=2)
    with pytest.raises(UsageError, match="follows from all shards"):
        one_shard(place, "0/2", tmp_path / "run", keep=1)
    with pytest.raises(UsageError, match="9 batches cannot be divided into 20 shards"):
        one_shard(place, "0/20", tmp_path / "none")
    batches = [{"x": np.zeros((2, 6), np.float32)}]
    with pytest.raises(DataError, match="cannot be divided"):
        quantkit.layers(place / "model.onnx", data=batches, statistics=place / "model.stats.safetensors", workers=2)
    assert not (tmp_path / "none").exists()


def test_the_commands_divide_and_merge(
    place: Path, tmp_path: Path, quantkit_command: Command, quantkit_json: Callable[..., Any]
) -> None:
    words = ["layers", place / "model.onnx", "--data", place / "x.npz", "--batch-size", "9"]
    line, run = [*map(str, words), "--stats", str(place / "model.stats.safetensors")], str(tmp_path / "run")
    done = quantkit_command(*line, "--shard", "0/2", "-o", run)
    assert "1 of 2 shards is there" in done.stdout
    assert quantkit_json(*line, "--shard", "1/2", "-o", run)["samples"] == 17
    quantkit_command(*line, "--merge", run, "-o", str(tmp_path / "merged.txt"), "-q")
    quantkit_command(*line, "-o", str(tmp_path / "whole.txt"), "-q")
    assert (tmp_path / "merged.txt").read_text() == (tmp_path / "whole.txt").read_text() != ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merged.txt", "run", "whole.txt"]


@settings(max_examples=30)
@given(seed=st.integers(0, 2**16), cut=st.integers(0, 5))
def test_sums_of_parts_are_those_of_all(seed: int, cut: int) -> None:
    drawn = np.random.default_rng(seed)
    grid = Grid("int8", np.array([0.1], np.float32), np.zeros(1, np.int64), 0, 0, ("", ""))
    batches = [(10.0 ** drawn.uniform(-9, 9) * drawn.normal(size=7)).astype(np.float32) for _ in range(5)]

    def sums(chosen: list[Any]) -> ActivationErrorSums:
        made = ActivationErrorSums(QuantizedActivation("t", "n", grid, "mse"))
        for batch in chosen:
            made.add(batch)
        return made

    parts = sums([])
    for part in (batches[cut:], batches[:cut]):
        parts.extend(sums(part).state())
    assert parts.error() == sums(batches).error()
