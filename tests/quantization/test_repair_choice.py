"""Repairs are chosen by the noise at the outputs: the default is as good as any alternative."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import quantkit
from quantkit import QuantizeOptions
from quantkit.graph import load_model
from quantkit.output_noise import NoiseCandidate
from quantkit.preprocess import PRESETS
from quantkit.quantization.repair_choice import open_noise_meter, repairs_text
from quantkit.quantization.repair_run import NetworkSamples
from quantkit.repairs.registry import REPAIR_NAMES
from tests.support.qdq import model_of

BRANCHES = """(float[N, 8, 16, 16] x) => (float[N, 6] y) {
    a = Conv<pads = [1, 1, 1, 1]>(x, k) b = Conv(x, p) c = Add(a, b) r = Relu(c)
    d = Conv<pads = [1, 1, 1, 1]>(r, l) e = Conv(r, q) f = Add(d, e) g = Add(f, r) s = Relu(g)
    m = GlobalAveragePool(s) n = Flatten(m) y = Gemm(n, w)
}"""
CHOICES: dict[str, tuple[str, ...] | None] = {"bias": ("bias",), "all": REPAIR_NAMES, "default": None}


@pytest.fixture
def net(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A network of branches, whose channels differ a lot, with data beside it."""
    random = np.random.default_rng(request.param)
    sizes = {"k": (8, 8, 3, 3), "p": (8, 8, 1, 1), "l": (8, 8, 3, 3), "q": (8, 8, 1, 1)}
    weights = {n: random.normal(size=s) * np.exp2(random.normal(size=(8, 1, 1, 1))) / 6 for n, s in sizes.items()}
    weights["w"] = random.normal(size=(8, 6))
    made = model_of(BRANCHES, 17, **{name: values.astype(np.float32) for name, values in weights.items()})
    onnx.save(made.proto, tmp_path / "net.onnx")
    images = random.normal(size=(48, 8, 16, 16)) * np.exp2(random.normal(size=(8, 1, 1)))
    np.save(tmp_path / "x.npy", images.astype(np.float32))
    return tmp_path


def quantized(folder: Path, repairs: tuple[str, ...] | None) -> Any:
    options = QuantizeOptions(repairs=repairs)
    return quantkit.quantize(folder / "net.onnx", data=folder / "x.npy", preprocess="raw", options=options)


@pytest.mark.parametrize("net", range(4), indirect=True)
def test_the_default_is_the_best_of_what_it_weighs(net: Path) -> None:
    source = load_model(net / "net.onnx")
    measure = open_noise_meter(source, NetworkSamples(net / "x.npy", PRESETS["raw"]))
    made = {name: quantized(net, repairs) for name, repairs in CHOICES.items()}
    noise = measure.noise({n: NoiseCandidate(lambda m=m: load(net, m.proto)) for n, m in made.items()})  # type: ignore[misc]
    assert noise["default"].db >= noise["bias"].db - 0.05
    assert noise["default"].db >= noise["all"].db - 0.05
    said = made["default"].notes[0]
    assert said.startswith((*(repairs_text(tuple(made["default"].repairs)),),))
    assert "on 48 samples" in said
    assert not any("outputs at" in note for note in made["all"].notes)


def load(folder: Path, proto: onnx.ModelProto) -> Any:
    """A model in memory as one that was read."""
    path = folder / f"{id(proto)}.onnx"
    onnx.save(proto, path)
    return load_model(path)


def test_a_silent_output_drowns_no_other(tmp_path: Path) -> None:
    """It is nothing but zeros on the samples; what tells repairs apart is the other."""
    random = np.random.default_rng(0)
    weights = {"w": random.normal(size=(8, 8)), "v": random.normal(size=(8, 4)), "far": np.array(-1e6)}
    made = model_of(
        """(float[N, 8] x) => (float[N, 4] y, float[N, 4] z) {
        h = Gemm(x, w) r = Relu(h) y = Gemm(r, v) s = Add(y, far) z = Relu(s) }""",
        17,
        **{name: values.astype(np.float32) for name, values in weights.items()},
    )
    onnx.save(made.proto, tmp_path / "net.onnx")
    np.save(tmp_path / "x.npy", random.normal(size=(64, 8)).astype(np.float32))
    said = quantized(tmp_path, None).notes[0]
    assert "1 of 2 outputs at" in said
    assert "lost" not in said


@pytest.mark.parametrize("batch", [24, 100])
def test_batches_of_a_network_that_is_fixed_to_some_are_whole(tmp_path: Path, batch: int) -> None:
    random = np.random.default_rng(0)
    made = model_of(
        f"(float[{batch}, 8] x) => (float[{batch}, 4] y) {{ h = Gemm(x, w) r = Relu(h) y = Gemm(r, v) }}",
        17,
        w=random.normal(size=(8, 8)).astype(np.float32),
        v=random.normal(size=(8, 4)).astype(np.float32),
    )
    onnx.save(made.proto, tmp_path / "net.onnx")
    np.save(tmp_path / "x.npy", random.normal(size=(4 * batch, 8)).astype(np.float32))
    assert f"on {48 if batch == 24 else 100} samples" in quantized(tmp_path, None).notes[0]


def test_outputs_that_are_not_float_cannot_be_compared(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    made = model_of(
        "(float[N, 8] x) => (int64[N, 4] y) { h = Gemm(x, w) r = Relu(h) z = Gemm(r, v) y = Cast<to = 7>(z) }",
        17,
        w=random.normal(size=(8, 8)).astype(np.float32),
        v=random.normal(size=(8, 4)).astype(np.float32),
    )
    onnx.save(made.proto, tmp_path / "net.onnx")
    np.save(tmp_path / "x.npy", random.normal(size=(32, 8)).astype(np.float32))
    found = quantized(tmp_path, None)
    assert set(found.repairs) == set(REPAIR_NAMES)
    assert found.notes[0].startswith("all repairs: outputs were not compared (")
