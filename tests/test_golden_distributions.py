"""Tables that TensorRT 8.6 wrote for 24 known distributions, reproduced byte for byte by every rule."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

from quantkit.calibration.tables import header_for, make_tables
from quantkit.histogram import HistogramMode
from quantkit.rules import Rule
from quantkit.rules.entropy import Entropy
from quantkit.rules.minmax import MinMax
from quantkit.rules.percentile import Percentile
from quantkit.statistics import Collector, Origin, Statistics
from quantkit.table import Algorithm, parse_table, table_bytes

FOLDER = Path(__file__).parents[0] / "golden" / "distributions"
KINDS = range(24)
TENSORS = [f"in{k}" for k in KINDS] + [f"out{k}" for k in KINDS]
TABLES: dict[str, tuple[Rule, Algorithm]] = {
    "entropy": (Entropy(), Algorithm.ENTROPY),
    "entropy2": (Entropy(), Algorithm.ENTROPY_2),
    "legacy": (Percentile(99.99), Algorithm.LEGACY),
    "minmax": (MinMax(), Algorithm.MIN_MAX),
}


def max_pool(x: np.ndarray) -> np.ndarray:
    """MaxPool 2×2, stride 2, of [N, C, H, W]."""
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 2, 2).max(axis=(3, 5))


@pytest.fixture(scope="module", params=["A", "B"])
def experiment(request: pytest.FixtureRequest) -> tuple[str, Statistics]:
    """Eight batches (A) or the first alone (B), as a calibration pass sees them."""
    collector = Collector(TENSORS, [], HistogramMode.TENSORRT)
    batches = runpy.run_path(str(FOLDER / "make.py"))["batches"](request.param)
    for batch in batches:
        for k in KINDS:
            for name, values in ((f"in{k}", batch[f"in{k}"]), (f"out{k}", max_pool(batch[f"in{k}"]))):
                assert collector.count(name, values, whole=True)
        assert collector.end_batch() == ()
    origin = Origin(model="", data="0", samples=len(batches), preprocess=None, histogram=collector.mode, backend="",
                    slice=1)  # fmt: skip
    return request.param, collector.statistics({f"out{k}": f"in{k}" for k in KINDS}, origin)


@pytest.mark.parametrize("name", TABLES)
def test_the_table_is_tensorrts_byte_for_byte(experiment: tuple[str, Statistics], name: str) -> None:
    letter, statistics = experiment
    rule, algorithm = TABLES[name]
    theirs = (FOLDER / f"{letter}_{name}.cache").read_bytes()
    ours = make_tables(statistics, {rule: header_for(rule, 8600, algorithm)})[rule.name]
    assert dict(ours.scales) == dict(parse_table(theirs).scales)
    assert table_bytes(ours) == theirs


@pytest.mark.parametrize(("name", "shares"), [("entropy", 0), ("entropy2", 24), ("legacy", 0), ("minmax", 24)])
def test_pool_outputs_take_their_inputs_scale_where_tensorrt_does_that(name: str, shares: int) -> None:
    """A statement about the golden tables: under v1 and Legacy some pool outputs differ from their inputs."""
    scales = parse_table((FOLDER / f"A_{name}.cache").read_bytes()).scales
    equal = sum(scales[f"in{k}"] == scales[f"out{k}"] for k in KINDS)
    assert equal == shares if shares else equal < len(KINDS)
    assert TABLES[name][1].shares_pools == bool(shares)
