"""Shards of TensorRT's mode whose tensors have their first values late: replayed, or refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import quantkit
from quantkit import CalibrateOptions, DataOptions
from quantkit.calibration import leading_batches
from quantkit.calibration.from_statistics import merge
from quantkit.calibration.job import CalibrationJob, prepare_job
from quantkit.calibration.shard_run import ShardCollector
from quantkit.errors import QuantkitError, StaleError, StatisticsError
from quantkit.progress import NoProgress
from quantkit.sharding import Shard
from quantkit.statistics import Statistics, parse_statistics, statistics_bytes
from quantkit.statistics.grids import OtherRangesError
from quantkit.statistics.range_probe import RangeProbe
from quantkit.statistics.shard_merging import merge_shards
from tests.support.networks import network

OPTIONS = CalibrateOptions(backend="onnxruntime", data=DataOptions(batch_size=1))
LATE = leading_batches.MOST_LEADING + 1
"""The first batch that no later shard runs beside its own, and one more."""

NINTH = [-1.0] * (LATE + 1) + [3.0, 5.0, 6.0] + [-1.0] * 3 + [7.0, 7.0, 12.0, 9.0]
"""Batches of one value. In five shards, shard 2 has the first above 0, and those of shard 4 are no doublings of it."""


def two_signs() -> onnx.ModelProto:
    """What is above 0, and what is below: each can be zero where the other is not."""
    nodes = [
        helper.make_node("Relu", ["x"], ["above"]),
        helper.make_node("Neg", ["x"], ["minus"]),
        helper.make_node("Relu", ["minus"], ["below"]),
    ]
    return network(nodes, {"x": ["N", 1]}, ["above", "below"])


def saved(folder: Path, values: Sequence[float]) -> Path:
    np.save(folder / "x.npy", np.array(values, np.float32)[:, None])
    return folder / "x.npy"


def whole_run(data: Path) -> bytes:
    statistics = quantkit.calibrate(two_signs(), data, options=OPTIONS).statistics
    assert statistics is not None
    return statistics_bytes(statistics)


def job_of(data: Path) -> CalibrationJob:
    return prepare_job(two_signs(), data, "minmax", None, None, OPTIONS)


def shards_of(data: Path, count: int) -> dict[str, Statistics]:
    """Every shard from a process of its own, read back from the bytes of its file."""
    found = {}
    for index in range(count):
        statistics = ShardCollector(job_of(data)).collect(Shard(index, count), NoProgress()).statistics
        found[f"shard {index}"] = parse_statistics(statistics_bytes(statistics), "")
    return found


def test_a_tensor_that_is_zero_at_first_has_the_range_of_its_first_value(tmp_path: Path) -> None:
    """Found in a leading batch, or in the first shard in which it is not zero, and zero or on its grid in others."""
    values = [-1.0] * (LATE + 2) + [3.0, -1.25, -2.5, 6.0, 2.0**-140 * 3, -1.0, -5.0, 24.0]
    data = saved(tmp_path, values)
    whole = whole_run(data)
    for count in (1, 2, 3, 7, len(values)):
        assert statistics_bytes(merge_shards(shards_of(data, count).items())) == whole


def test_a_shard_runs_no_more_leading_batches_than_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(tmp_path, [0.0, 0.0, -2.0, 3.0, *[1.0] * 20])
    read: list[int] = []

    def run(self: object, number: int, slices: object) -> None:
        read.append(number)
        plain(self, number, slices)  # type: ignore[arg-type]

    plain = leading_batches.WorkerPool.run
    monkeypatch.setattr(leading_batches.WorkerPool, "run", run)
    collector = ShardCollector(job_of(data))
    per_shard = []
    for index in (0, 1, 3, 2):
        read.clear()
        collector.collect(Shard(index, 12), NoProgress())
        per_shard.append(len(read))
    own = 2
    assert per_shard == [own, own + 2, own + 2, own], "two before batch 2, two more until both signs are known"


def test_a_probe_waits_for_values_alone() -> None:
    """A tensor with NaN or Inf in a slice has no scale, so that no batch is run for its range."""
    probe = RangeProbe(["zero", "late", "known", "nan", "inf"], {"known": 5.0})
    for batch in (0.0, -3.0):
        for name, value in {"zero": 0.0, "late": batch, "nan": np.nan, "inf": -np.inf}.items():
            for slice_ in (value, 1.0 if batch and name != "zero" else 0.0):
                assert probe.count(name, np.array([[slice_]], np.float32), whole=False)
        assert probe.end_batch() == ()
        assert probe.tensors == (("zero", "late") if batch == 0.0 else ("zero",))
    assert {name: probe.found[name] for name in ("known", "late")} == {"known": 5.0, "late": 3.0}


def test_shards_on_other_ranges_are_refused_by_name(tmp_path: Path) -> None:
    """Shard 2 holds the first value of a tensor, and does not fit the later ones but one."""
    data = saved(tmp_path, NINTH)
    shards = shards_of(data, 5)
    with pytest.raises(OtherRangesError) as caught:
        merge_shards(shards.items())
    assert caught.value.problem.splitlines() == [
        "tensor 'above' has its first values in shard 2, and shard 4 counted it from another range, whose bins do not "
        "fit:",
        "    shard 4: --shard 4/5",
    ]
    assert caught.value.shards == ("shard 4",)
    assert caught.value.first_ranges == {"above": 3.0, "below": 1.0, "x": 1.0, "minus": 1.0}
    again = ShardCollector(job_of(data), caught.value.first_ranges).collect(Shard(4, 5), NoProgress())
    assert statistics_bytes(merge_shards({**shards, "shard 4": again.statistics}.items())) == whole_run(data)


def test_the_same_calls_again_give_the_statistics_of_one_run(tmp_path: Path) -> None:
    """Merging leaves the first ranges beside the shards; those that did not know them are replaced, others reused."""
    data, run, merged = saved(tmp_path, NINTH), tmp_path / "run", tmp_path / "all.stats.safetensors"

    def make_shards() -> list[bool]:
        options = [replace(OPTIONS, shard=Shard(index, 5)) for index in range(5)]
        shards = [quantkit.calibrate(two_signs(), data, options=each, output=run) for each in options]
        notes.append(" ".join(shards[4].notes))
        return [shard.reused for shard in shards]

    notes: list[str] = []

    assert make_shards() == [False] * 5
    with pytest.raises(StatisticsError) as caught:
        merge(run, merged)
    assert caught.value.details == (f"{run / '0004-of-0005.stats.safetensors'}: --shard 4/5",)
    assert caught.value.remedy == (
        f"make it again by the same command, which takes the ranges from {run / 'first-ranges.json'}, and merge"
    )
    assert not merged.exists()
    assert make_shards() == [True] * 4 + [False]
    assert "replaces a shard" in notes[-1]
    merge(run, merged)
    assert merged.read_bytes() == whole_run(data)
    assert make_shards() == [True] * 5


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", StatisticsError),
        ("{}", StatisticsError),
        ('{"format":1,"run":"x","ranges":{"x":0.0}}', StatisticsError),
        ('{"format":1,"run":"x","ranges":{"x":NaN}}', StatisticsError),
        ('{"format":2,"run":"x","ranges":{}}', StatisticsError),
        ('{"format":1,"run":"another","ranges":{}}', StaleError),
    ],
)
def test_another_file_of_first_ranges_is_refused(tmp_path: Path, text: str, error: type[QuantkitError]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "first-ranges.json").write_text(text)
    data = saved(tmp_path, [1.0, 2.0])
    with pytest.raises(error, match=r"first-ranges\.json is "):
        quantkit.calibrate(two_signs(), data, options=replace(OPTIONS, shard=Shard(0, 2)), output=tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["first-ranges.json"]


def test_first_ranges_of_other_data_are_refused(tmp_path: Path) -> None:
    """All shards fit each other, but not their first values."""
    data = saved(tmp_path, [-3.0, 1.0, 2.0, -4.0])
    collector = ShardCollector(job_of(data), {"x": 2.5})
    shards = {f"shard {k}": collector.collect(Shard(k, 2), NoProgress()).statistics for k in range(2)}
    with pytest.raises(OtherRangesError, match="'x' has its first values in shard 0, and 2 shards") as caught:
        merge_shards(shards.items())
    assert caught.value.first_ranges["x"] == 3.0


def test_a_tensor_without_a_scale_in_one_shard_needs_no_common_range(tmp_path: Path) -> None:
    """Shards that do not fit each other are merged where another shard overflows, so that the tensor has no scale."""
    values = [-1.0] * (LATE + 1) + [3.0, 5.0, 7.0] + [-1.0] * 6 + [2.0**101]
    data = saved(tmp_path, values)
    statistics = quantkit.calibrate(two_signs(), data, options=OPTIONS).statistics
    assert statistics is not None
    assert "above" in statistics.unscalable
    for order in ([0, 1, 2, 3, 4], [3, 1, 0, 2, 4], [2, 3, 4, 1, 0]):
        shards = shards_of(data, 5)
        merged = merge_shards((f"{k}", shards[f"shard {k}"]) for k in order)
        assert statistics_bytes(merged) == statistics_bytes(statistics)


@pytest.mark.shared
def test_shards_of_a_real_network_are_one_run(shared: Path) -> None:
    """The last bits of float32 are in it, and ranges that double after the first batch."""
    model, data = shared / "models" / "resnet20.onnx", shared / "golden" / "networks" / "calibration_512.npz"
    options = replace(OPTIONS, data=DataOptions(batch_size=16, limit=112))
    whole = quantkit.calibrate(model, data, preprocess="cifar10", options=options).statistics
    collector = ShardCollector(prepare_job(model, data, "minmax", "cifar10", None, options))
    shards = [(f"{k}", collector.collect(Shard(k, 3), NoProgress()).statistics) for k in (2, 0, 1)]
    assert whole is not None
    assert statistics_bytes(merge_shards(shards)) == statistics_bytes(whole)
    joins = [seam.low[1:].any() for _, shard in shards for seam in (shard.seams or {}).values()]
    assert any(joins), "a range has doubled after a value lay on its edge"
