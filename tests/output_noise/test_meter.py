"""Noise of outputs that hold NaN in places: equal NaN do not count, and nothing but NaN is an error."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from quantkit.data import DataOptions, Feed, open_data
from quantkit.data.feed import Portion
from quantkit.errors import DataError
from quantkit.graph import Model, load_model
from quantkit.output_noise import EnergySums, NoiseCandidate, NoiseMeter, reference_blocks
from quantkit.preprocess import Preprocess
from tests.support.networks import network

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)


def folder_of_x(folder: Path) -> Path:
    np.savez(folder / "x.npz", x=X)
    return folder / "x.npz"


def shifted(folder: Path, name: str, shift: list[float]) -> Model:
    nodes = [helper.make_node("Add", ["x", "s"], ["y"])]
    onnx.save(network(nodes, {"x": ["N", 3]}, ["y"], {"s": np.array(shift, np.float32)}), folder / name)
    return load_model(folder / name)


def test_nan_of_both_does_not_count(tmp_path: Path) -> None:
    reference = shifted(tmp_path, "a.onnx", [math.nan, 0, 0])
    feed, _ = open_data(folder_of_x(tmp_path), reference.inputs, Preprocess(), DataOptions())
    meter = NoiseMeter(reference, feed)
    others = {"same": [math.nan, 0, 0], "near": [math.nan, 0.1, 0], "more": [math.nan, math.nan, 0]}
    found = meter.noise(
        {key: NoiseCandidate(lambda k=key, s=shift: shifted(tmp_path, f"{k}.onnx", s)) for key, shift in others.items()}
    )
    assert found["same"].outputs == 0
    assert found["near"].outputs == pytest.approx(4 * 0.1**2 / float(np.square(X[:, 1:]).sum()), rel=1e-5)
    assert found["more"].outputs == math.inf
    assert meter.notes == ("outputs hold NaN without quantization: y; NaN in the same places does not count",)


def test_nothing_but_nan_is_an_error(tmp_path: Path) -> None:
    reference = shifted(tmp_path, "a.onnx", [math.nan] * 3)
    feed, _ = open_data(folder_of_x(tmp_path), reference.inputs, Preprocess(), DataOptions())
    with pytest.raises(DataError, match=r"output 'y' of .*a.onnx is NaN for every sample"):
        NoiseMeter(reference, feed).noise({"": NoiseCandidate(lambda: reference)})


def test_nan_of_one_is_infinite_noise() -> None:
    for exact, other in ((math.nan, 1.0), (1.0, math.nan), (math.inf, -math.inf)):
        sums = EnergySums()
        sums.add("y", np.array([exact, 2.0]), np.array([other, 2.0]))
        assert sums.ratio(["y"]) == math.inf


@pytest.mark.parametrize(("kept", "runs"), [(reference_blocks.KEPT, 1), (0, 3)])
def test_the_reference_runs_once_where_its_answers_are_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int, runs: int
) -> None:
    monkeypatch.setattr(reference_blocks, "KEPT", kept)
    reference, other = shifted(tmp_path, "a.onnx", [math.nan, 0, 0]), shifted(tmp_path, "b.onnx", [math.nan, 0.1, 0])
    feed, _ = open_data(folder_of_x(tmp_path), reference.inputs, Preprocess(), DataOptions())
    meter = NoiseMeter(reference, feed)
    read: list[int] = []
    portions = type(feed).portions

    def counted(self: Feed) -> Iterator[Portion]:
        read.append(1)
        return portions(self)

    monkeypatch.setattr(type(feed), "portions", counted)
    found = [meter.noise({"": NoiseCandidate(lambda: other)})[""] for _ in range(3)]
    assert found[0] == found[1] == found[2]
    assert (len(read), meter.samples, len(meter.notes)) == (runs, 4, 1)
