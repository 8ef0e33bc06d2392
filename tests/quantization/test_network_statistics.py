"""Statistics that are added to, or counted again in part, are those of one run over everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import quantkit
from quantkit import CalibrateOptions, QuantizeOptions
from quantkit.graph import Model
from quantkit.preprocess import PRESETS
from quantkit.progress import Phases
from quantkit.qdq.placement import Choices
from quantkit.quantization.network_statistics import (
    NetworkSamples,
    add_samples,
    collect_network_statistics,
    statistics_after_rescaling,
)
from quantkit.quantization.repair_run import RepairedNetwork, apply_repair
from quantkit.repairs.equalization import EQUALIZE
from quantkit.statistics import Statistics
from tests.support.qdq import model_of

NETWORK = """(float[N, 8, 16, 16] x) => (float[N, 6] y) {
    a = Conv<pads = [1, 1, 1, 1]>(x, k) r = Relu(a) b = Conv(r, q) s = Sigmoid(b)
    m = GlobalAveragePool(s) n = Flatten(m) y = Gemm(n, w)
}"""
NONE: frozenset[str] = frozenset()


def network() -> Model:
    """Two convolutions: between them channels have very different ranges."""
    random = np.random.default_rng(1)
    shapes = {"k": (8, 8, 3, 3), "q": (8, 8, 1, 1), "w": (8, 6)}
    values = {name: random.normal(size=shape) for name, shape in shapes.items()}
    values["k"] *= np.geomspace(0.05, 5, 8).reshape(8, 1, 1, 1)
    return model_of(NETWORK, 17, **{name: each.astype(np.float32) for name, each in values.items()})


def samples(folder: Path, name: str, count: int, seed: int = 0) -> NetworkSamples:
    """Noise in a file; its last samples are the loudest."""
    path = folder / f"{name}.npy"
    loud = np.linspace(1, 3, count).reshape(-1, 1, 1, 1)
    np.save(path, (loud * np.random.default_rng(seed).normal(size=(count, 8, 16, 16))).astype(np.float32))
    return NetworkSamples(path, PRESETS["raw"])


def collect(model: Model, data: NetworkSamples) -> Statistics:
    return collect_network_statistics(model, data, NONE, Phases())


def assert_same(one: Statistics, other: Statistics, tensors: Any) -> None:
    """The same counts, bit for bit."""
    for name in tensors:
        ours, theirs = one.histograms[name], other.histograms[name]
        assert (ours.range, ours.minimum, ours.maximum) == (theirs.range, theirs.minimum, theirs.maximum), name
        np.testing.assert_array_equal(ours.counts, theirs.counts, name)


def test_the_rest_of_the_samples_adds_up_to_one_run_over_all(tmp_path: Path) -> None:
    model, first, rest = network(), samples(tmp_path, "first", 64), samples(tmp_path, "rest", 32, seed=1)
    np.save(tmp_path / "all.npy", np.concatenate([np.load(tmp_path / f"{name}.npy") for name in ("first", "rest")]))
    everything = NetworkSamples(tmp_path / "all.npy", PRESETS["raw"])
    added = add_samples(collect(model, first), model, rest, everything, NONE, Phases())
    whole = collect(model, everything)
    assert list(added.histograms) == list(whole.histograms)
    assert_same(added, whole, whole.histograms)
    for ours, theirs in zip(added.channels, whole.channels, strict=True):
        assert (ours.tensor, ours.elements) == (theirs.tensor, theirs.elements)
        np.testing.assert_array_equal(ours.sums, theirs.sums)
    assert (added.origin.samples, added.origin.data) == (96, whole.origin.data)
    assert {h.samples for h in added.histograms.values()} == {96}


def test_a_tensor_that_is_empty_in_one_part_counts_all_samples(tmp_path: Path) -> None:
    text = """(float[N, 4] x) => (float[M] y, float[N, 4] z) {
        zero = Constant<value = float {0}>() c = Greater(x, zero) s = Constant<value = int64[1] {-1}>()
        f = Reshape(c, s) p = Compress(x, f) y = Relu(p) z = Relu(x)
    }"""
    model = model_of(text, 17)
    for name, sign in (("first", -1), ("rest", 1)):
        np.save(tmp_path / f"{name}.npy", sign * np.ones((32, 4), np.float32))
    np.save(tmp_path / "all.npy", np.repeat(np.float32([-1, 1]), 32)[:, None] * np.ones((64, 4), np.float32))
    first, rest, everything = (NetworkSamples(tmp_path / f"{n}.npy", PRESETS["raw"]) for n in ("first", "rest", "all"))
    before = collect(model, first)
    assert "p" not in before.histograms
    added = add_samples(before, model, rest, everything, NONE, Phases())
    assert_same(added, collect(model, everything), ["x", "p", "y", "z"])


def test_after_rescaling_only_the_rescaled_tensors_are_counted_again(tmp_path: Path) -> None:
    model, data = network(), samples(tmp_path, "x", 64)
    before = collect(model, data)
    made = apply_repair(RepairedNetwork(model, before), EQUALIZE, data, Choices(), Phases(), rounds_weights=True)
    after, whole = made.statistics, collect(made.network, data)
    assert made.done["equalize"].gains
    assert_same(after, whole, ["a", "r"])
    assert_same(after, before, ["x", "b", "s", "m", "n", "y"])
    for name, histogram in whole.histograms.items():
        assert after.histograms[name].amax == pytest.approx(histogram.amax, rel=1e-5), name
    assert before.histograms["r"].amax != pytest.approx(after.histograms["r"].amax, rel=0.1)
    for ours, theirs in zip(after.channels, whole.channels, strict=True):
        np.testing.assert_allclose(ours.maximum, theirs.maximum, rtol=1e-5)
        np.testing.assert_array_equal(ours.gain, theirs.gain)
    assert after.origin == whole.origin


def test_statistics_of_other_samples_are_counted_again_as_a_whole(tmp_path: Path) -> None:
    model, data = network(), samples(tmp_path, "x", 32)
    other = collect(model, samples(tmp_path, "other", 32, seed=5))
    after = statistics_after_rescaling(other, model, {"a", "r"}, data, NONE, Phases())
    whole = collect(model, data)
    assert after.origin == whole.origin
    assert_same(after, whole, whole.histograms)


def test_the_last_fit_has_the_scales_of_all_samples(tmp_path: Path) -> None:
    onnx.save(network().proto, tmp_path / "net.onnx")
    samples(tmp_path, "x", 128)
    made = quantkit.quantize(
        tmp_path / "net.onnx", data=tmp_path / "x.npy", preprocess="raw", options=QuantizeOptions(repairs=("bias",))
    )
    assert made.held_out is not None
    assert made.held_out.refitted
    all_of_it = quantkit.calibrate(
        tmp_path / "net.onnx", tmp_path / "x.npy", preprocess="raw", options=CalibrateOptions(backend="onnxruntime")
    )
    options = QuantizeOptions(rule=made.held_out.rule, repairs=("bias",))
    known = quantkit.quantize(tmp_path / "net.onnx", statistics=all_of_it.statistics, options=options)
    scales = {name: scale / made.held_out.factor for name, scale in made.pairs.items()}
    assert scales == pytest.approx(dict(known.pairs), rel=0.01)
