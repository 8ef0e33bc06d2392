"""The command line writes TensorRT's own tables: byte for byte on equal activations, closely on real networks."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from quantkit import CalibrateOptions
from quantkit.calibration.job import prepare_job
from quantkit.calibration.shard_run import ShardCollector
from quantkit.calibration.tables import header_for, make_tables
from quantkit.progress import NoProgress
from quantkit.rules import Rule
from quantkit.rules.entropy import Entropy
from quantkit.rules.minmax import MinMax
from quantkit.rules.percentile import Percentile
from quantkit.sharding import Shard
from quantkit.statistics import read_statistics
from quantkit.statistics.shard_merging import merge_shards
from quantkit.table import Algorithm, read_table, table_bytes
from tests.support.networks import Command, network

GOLDEN = Path(__file__).parents[1] / "golden" / "distributions"
RULES: dict[str, tuple[Rule, Algorithm]] = {
    "entropy": (Entropy(), Algorithm.ENTROPY),
    "entropy2": (Entropy(), Algorithm.ENTROPY_2),
    "legacy": (Percentile(99.99), Algorithm.LEGACY),
    "minmax": (MinMax(), Algorithm.MIN_MAX),
}
NETWORKS = ("resnet20", "mobilenetv2", "vit")


@pytest.fixture
def pools(tmp_path: Path) -> Path:
    """The network from which the golden tables come: 24 inputs, a MaxPool behind each."""
    nodes = [
        helper.make_node("MaxPool", [f"in{k}"], [f"out{k}"], kernel_shape=[2, 2], strides=[2, 2]) for k in range(24)
    ]
    model = network(nodes, {f"in{k}": [1, 1, 256, 256] for k in range(24)}, [f"out{k}" for k in range(24)])
    onnx.save(model, tmp_path / "pools.onnx")
    return tmp_path


@pytest.mark.parametrize("experiment", ["A", "B"])
def test_tables_are_tensorrts_byte_for_byte(experiment: str, pools: Path, quantkit_command: Command) -> None:
    (pools / "batches").mkdir()
    for number, batch in enumerate(runpy.run_path(str(GOLDEN / "make.py"))["batches"](experiment)):
        np.savez(pools / "batches" / f"{number:03}.npz", **batch)
    quantkit_command(
        "calibrate", "--data", "batches", "pools.onnx", "--rule", "entropy,minmax", "--tensorrt-version", "8.6.0",
        "-o", "x.calib",
    )  # fmt: skip
    assert (pools / "x.calib").read_bytes() == (GOLDEN / f"{experiment}_entropy2.cache").read_bytes()
    assert (pools / "x.minmax.calib").read_bytes() == (GOLDEN / f"{experiment}_minmax.cache").read_bytes()
    quantkit_command(
        "stats", "table", "x.stats.safetensors", "--algorithm", "EntropyCalibration", "--rule", "entropy",
        "--tensorrt-version", "8.6.0", "-o", "v1",
    )  # fmt: skip
    quantkit_command(
        "stats", "table", "x.stats.safetensors", "--algorithm", "LegacyCalibration", "--rule", "percentile:99.99",
        "-o", "legacy",
    )  # fmt: skip
    assert (pools / "v1").read_bytes() == (GOLDEN / f"{experiment}_entropy.cache").read_bytes()
    assert (pools / "legacy").read_bytes() == (GOLDEN / f"{experiment}_legacy.cache").read_bytes()


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_tables_from_shards_are_tensorrts_byte_for_byte(count: int, pools: Path) -> None:
    """Every calibrator's table from the shards of the eight batches; one tensor is zero in all of them."""
    (pools / "batches").mkdir()
    for number, batch in enumerate(runpy.run_path(str(GOLDEN / "make.py"))["batches"]("A")):
        np.savez(pools / "batches" / f"{number}.npz", **batch)
    options = CalibrateOptions(backend="onnxruntime")
    collector = ShardCollector(prepare_job(pools / "pools.onnx", pools / "batches", "entropy", None, None, options))
    order = [*range(1, count, 2), *range(0, count, 2)]
    shards = {index: collector.collect(Shard(index, count), NoProgress()).statistics for index in order}
    statistics = merge_shards((str(index), shard) for index, shard in shards.items())
    for name, (rule, algorithm) in RULES.items():
        table = make_tables(statistics, {rule: header_for(rule, 8600, algorithm)})[rule.name]
        assert table_bytes(table) == (GOLDEN / f"A_{name}.cache").read_bytes()


@pytest.mark.shared
@pytest.mark.parametrize("name", NETWORKS)
def test_real_networks_agree_with_the_tables_that_tensorrt_wrote_on_a_gpu(
    name: str, shared: Path, tmp_path: Path, quantkit_command: Command
) -> None:
    golden = shared / "golden" / "networks"
    quantkit_command(
        "calibrate", "--data", golden / "calibration_512.npz", "--preprocess", "cifar10", "--rule", "entropy,minmax",
        "--tensorrt-version", "8.6.0", "-o", "x.calib", shared / "models" / f"{name}.onnx",
    )  # fmt: skip
    histograms = read_statistics(tmp_path / "x.stats.safetensors").histograms
    ours, theirs = read_table(tmp_path / "x.calib"), read_table(golden / f"{name}_entropy2.cache")
    common = [n for n in theirs.scales if n in ours.scales]
    assert [n for n in ours.scales if n in theirs.scales] == common
    assert all(n in ours.scales or n.startswith("(Unnamed Layer*") for n in theirs.scales)
    bins = [abs(ours.amax(n) - theirs.amax(n)) / histograms[n].width for n in common]
    far = sum(distance > 1.001 for distance in bins)
    assert far <= 0.03 * len(common) + 1, "last bits decide between two minima that are alike, in a tensor more or less"
    assert max(abs(ours.scales[n] / theirs.scales[n] - 1) for n in common) <= 0.06
    if (minmax := golden / f"{name}_minmax.cache").exists():
        ours, theirs = read_table(tmp_path / "x.minmax.calib"), read_table(minmax)
        assert max(abs(ours.scales[n] / s - 1) for n, s in theirs.scales.items() if n in ours.scales) <= 1e-5
