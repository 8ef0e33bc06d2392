"""Rules and repairs are chosen on samples that nothing was fitted to, and the figures are those of such samples."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import quantkit
from quantkit import CalibrateOptions, DataOptions, QuantizeOptions
from quantkit.errors import StaleError, UsageError
from quantkit.graph import load_model
from quantkit.metrics.heads.yolo import compared_parts
from quantkit.output_noise import NoiseCandidate, NoiseMeter
from quantkit.preprocess import PRESETS
from quantkit.quantization import repair_choice
from quantkit.quantization.held_out import HeldOutParts, MeasuredNoise, gain_over, hold_out, open_feed
from quantkit.quantization.network_statistics import NetworkSamples
from quantkit.quantization.record import quantization_record
from quantkit.quantization.rule_choice import best_way
from quantkit.repairs.repair import Needs, Repair, RepairInput, RepairOutcome
from tests.support.qdq import model_of

BRANCHES = """(float[N, 8, 16, 16] x) => (float[N, 6] y) {
    a = Conv<pads = [1, 1, 1, 1]>(x, k) b = Conv(x, p) c = Add(a, b) r = Relu(c)
    d = Conv<pads = [1, 1, 1, 1]>(r, l) e = Conv(r, q) f = Add(d, e) g = Add(f, r) s = Relu(g)
    m = GlobalAveragePool(s) n = Flatten(m) y = Gemm(n, w)
}"""
LAYERS = "(float[N, 8] x) => (float[N, 4] y) { h = Gemm(x, w) r = Relu(h) y = Gemm(r, v) }"


def layers(folder: Path, samples: int, text: str = LAYERS, **weights: Any) -> Path:
    """Two layers, with data beside them."""
    random = np.random.default_rng(0)
    values = {"w": random.normal(size=(8, 8)), "v": random.normal(size=(8, 4)), **weights}
    made = model_of(text, 17, **{name: np.asarray(each, np.float32) for name, each in values.items()})
    onnx.save(made.proto, folder / "net.onnx")
    np.save(folder / "x.npy", random.normal(size=(samples, 8)).astype(np.float32))
    return folder


def quantized(folder: Path, *arguments: Any, **options: Any) -> Any:
    data = options.pop("data", folder / "x.npy")
    chosen = QuantizeOptions(**options)
    return quantkit.quantize(folder / "net.onnx", *arguments, data=data, preprocess="raw", options=chosen)


def parts_of(folder: Path) -> HeldOutParts:
    found = hold_out(load_model(folder / "net.onnx"), NetworkSamples(folder / "x.npy", PRESETS["raw"]))
    assert not isinstance(found, str)
    return found


ENERGIES = st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=6).map(np.array)


@given(ENERGIES, st.floats(0.01, 100))
def test_a_gain_is_the_ratio_of_noises_and_its_error_0_where_all_samples_agree(noise: Any, factor: float) -> None:
    one = MeasuredNoise({"y": (np.ones_like(noise), noise)})
    other = MeasuredNoise({"y": (np.ones_like(noise), noise * factor)})
    gain, back = gain_over(one, other, ["y"]), gain_over(other, one, ["y"])
    assert gain.db == pytest.approx(10 * np.log10(factor), abs=1e-9)
    assert back.db == pytest.approx(-gain.db, abs=1e-9)
    assert gain.error == pytest.approx(0.0, abs=1e-6)


def test_several_outputs_count_the_same_whatever_their_signal_is() -> None:
    def noise(loud: float, quiet: float) -> MeasuredNoise:
        return MeasuredNoise({"a": (np.full(4, 1e6), np.full(4, loud)), "b": (np.ones(4), np.full(4, quiet))})

    assert gain_over(noise(1e3, 1e-3), noise(2e3, 1e-3), ["a", "b"]).db == pytest.approx(5 * np.log10(2))
    assert gain_over(noise(1e3, 1e-3), noise(1e3, 2e-3), ["a", "b"]).db == pytest.approx(5 * np.log10(2))


def test_another_rule_is_taken_only_where_it_is_better_by_more_than_chance() -> None:
    def noise(*each: float) -> MeasuredNoise:
        return MeasuredNoise({"y": (np.ones(4), np.array(each))})

    default = ("mse", ("bias",))
    lucky = {default: noise(1, 1, 1, 9), ("minmax", ("bias",)): noise(3, 3, 3, 2)}
    better = {default: noise(1, 1, 1, 9), ("minmax", ("bias",)): noise(0.5, 0.5, 0.5, 5)}
    assert best_way(lucky, default, ["y"]) == default
    assert best_way(better, default, ["y"]) == ("minmax", ("bias",))
    more = {**better, ("minmax", ("round", "bias")): noise(0.1, 0.1, 0.1, 1), ("mse", ("round",)): noise(0, 0, 0, 0)}
    assert best_way(more, default, ["y"]) == ("minmax", ("round", "bias"))


@pytest.mark.parametrize(("samples", "limit", "held"), [(128, None, 32), (600, None, 64), (600, 200, 50)])
def test_the_parts_share_no_sample_and_together_are_those_of_one_run(
    tmp_path: Path, samples: int, limit: int | None, held: int
) -> None:
    layers(tmp_path, samples)
    network = load_model(tmp_path / "net.onnx")
    data = NetworkSamples(tmp_path / "x.npy", PRESETS["raw"], DataOptions(limit=limit))
    parts = hold_out(network, data)
    assert not isinstance(parts, str)
    names = [set(open_feed(network, part).names or ()) for part in (parts.fitting, parts.held, data)]
    assert not names[0] & names[1]
    assert names[0] | names[1] == names[2]
    assert abs(len(names[1]) - held) <= 1
    assert parts.fitted == len(names[0])


def test_a_fixed_batch_is_never_cut(tmp_path: Path) -> None:
    layers(tmp_path, 240, LAYERS.replace("N,", "24,"))
    network, parts = load_model(tmp_path / "net.onnx"), parts_of(tmp_path)
    assert [open_feed(network, part).samples for part in (parts.fitting, parts.held)] == [168, 48]
    assert quantized(tmp_path).held_out.held == 48


def test_the_figure_of_the_default_is_its_noise_on_samples_that_were_held_out(tmp_path: Path) -> None:
    layers(tmp_path, 600)
    made, parts = quantized(tmp_path, rule="mse"), parts_of(tmp_path)
    network = load_model(tmp_path / "net.onnx")
    options = QuantizeOptions(rule="mse", repairs=("bias",), data=parts.fitting.options)
    fitted = quantkit.quantize(tmp_path / "net.onnx", data=tmp_path / "x.npy", preprocess="raw", options=options)
    meter = NoiseMeter(network, open_feed(network, parts.held))
    candidate = replace(network, proto=fitted.proto, sha256="")
    found = meter.noise({"": NoiseCandidate(lambda: candidate)})[""]
    assert made.held_out.default_db == pytest.approx(found.db, abs=1e-6)
    assert (made.held_out.fitted, made.held_out.held) == (parts.fitted, meter.samples)
    assert set(made.repairs) == set(made.held_out.repairs) | {name for name, r in made.repairs.items() if not r.gains}


def test_a_repair_that_suits_only_what_it_was_fitted_to_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It claims a gain, and makes every weight of a layer half as large."""

    def spoil(given: RepairInput) -> RepairOutcome:
        proto = onnx.ModelProto()
        proto.CopyFrom(given.network.proto)
        (weight,) = (tensor for tensor in proto.graph.initializer if tensor.name == "v")
        weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) / 2, "v"))
        return RepairOutcome(proto, {"y": 20.0}, {})

    spoiling = Repair("spoil", Needs.DATA, "", "weights spoiled", "claimed", spoil)
    layers(tmp_path, 128)
    monkeypatch.setattr(repair_choice, "FITTED", (spoiling,))
    monkeypatch.setattr(repair_choice, "REPAIRS", (*repair_choice.REPAIRS[:-1], spoiling, repair_choice.REPAIRS[-1]))
    made = quantized(tmp_path)
    assert "spoil" not in made.held_out.repairs
    assert "spoil" not in made.repairs
    assert made.held_out.gains["spoil"].db < -3
    assert any("spoil −" in line and "(left out)" in line for line in made.held_out.lines)


@pytest.mark.parametrize(("samples", "reason"), [(64, "64 samples are too few to hold some out"), (1, "1 samples")])
def test_few_samples_choose_nothing_and_it_is_said(tmp_path: Path, samples: int, reason: str) -> None:
    layers(tmp_path, samples)
    made = quantized(tmp_path)
    assert made.held_out is None
    assert made.source == f"the data by {quantkit.rules.DEFAULT_RULE}"
    assert set(made.repairs) == {"round", "bias"}
    assert any(note.startswith(f"nothing was chosen by the data: {reason}") for note in made.notes)


def test_an_iterator_is_read_once_and_repairs_that_need_more_are_refused(tmp_path: Path) -> None:
    layers(tmp_path, 128)
    rows = np.load(tmp_path / "x.npy")
    made = quantized(tmp_path, data=iter([rows[:64], rows[64:]]))
    assert set(made.repairs) == {"bias"}
    assert any("the data can be read once only" in note for note in made.notes)
    with pytest.raises(UsageError, match="an iterator can be read once only"):
        quantized(tmp_path, data=iter([rows]), repairs=("round",))
    assert quantized(tmp_path, data=[rows[k : k + 8] for k in range(0, 128, 8)]).held_out.held == 32


def test_statistics_that_saw_what_is_held_out_are_not_used_for_the_choice(tmp_path: Path) -> None:
    layers(tmp_path, 700)
    rows = np.load(tmp_path / "x.npy")
    np.save(tmp_path / "other.npy", rows[::-1] * np.float32(1.01))
    options = CalibrateOptions(backend="onnxruntime", histogram="invariant")
    for data, said in (("x.npy", True), ("other.npy", False)):
        found = quantkit.calibrate(tmp_path / "net.onnx", tmp_path / data, preprocess="raw", options=options)
        made = quantkit.quantize(
            tmp_path / "net.onnx", statistics=found.statistics, data=tmp_path / "x.npy", preprocess="raw", limit=700
        )
        assert any("saw samples that are held out" in note for note in made.notes) == said
        assert made.source.startswith("statistics" if not said else f"{made.held_out.fitted} samples of the data")


@pytest.mark.parametrize(("samples", "again"), [(512, True), (700, False)])
def test_where_more_than_a_tenth_was_held_out_all_samples_are_fitted_to(
    tmp_path: Path, samples: int, again: bool
) -> None:
    layers(tmp_path, samples)
    made = quantkit.quantize(tmp_path / "net.onnx", data=tmp_path / "x.npy", preprocess="raw", limit=samples)
    assert made.held_out is not None
    assert (made.held_out.refitted, made.held_out.held) == (again, 64)
    assert made.source.startswith("the data" if again else f"{samples - 64} samples of the data")


def test_the_choice_is_the_same_again_and_is_kept_in_the_file(tmp_path: Path) -> None:
    layers(tmp_path, 128)
    first, again = quantized(tmp_path, tmp_path / "a.onnx"), quantized(tmp_path, tmp_path / "a.onnx")
    assert again.reused
    assert again.held_out == first.held_out
    other = quantized(tmp_path, tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    metadata = {entry.key: entry.value for entry in other.proto.metadata_props}
    assert json.loads(metadata["quantkit.quantize"])["held_out"]["held"] == 32
    assert quantization_record(metadata, "b.onnx") is not None
    with pytest.raises(StaleError, match="rule"):
        quantized(tmp_path, tmp_path / "a.onnx", rule="mse")


def test_a_silent_output_drowns_no_other(tmp_path: Path) -> None:
    """It is nothing but zeros on the samples; what tells repairs apart is the other."""
    text = """(float[N, 8] x) => (float[N, 4] y, float[N, 4] z) {
        h = Gemm(x, w) r = Relu(h) y = Gemm(r, v) s = Add(y, far) z = Relu(s) }"""
    layers(tmp_path, 128, text, far=np.array(-1e6))
    assert quantized(tmp_path).held_out.outputs == (1, 2)


def test_outputs_that_are_not_float_cannot_be_compared(tmp_path: Path) -> None:
    text = "(float[N, 8] x) => (int64[N, 4] y) { h = Gemm(x, w) r = Relu(h) z = Gemm(r, v) y = Cast<to = 7>(z) }"
    layers(tmp_path, 128, text)
    found = quantized(tmp_path)
    assert found.held_out is None
    assert any("has no float output" in note for note in found.notes)


def test_boxes_count_by_scores_and_scores_by_themselves() -> None:
    """[N, 4 + C, A]: a box of the background may lie anywhere."""
    random = np.random.default_rng(0)
    exact = random.uniform(0, 1, (2, 6, 5)).astype(np.float32)
    exact[:, 4:, 0] = 0
    other = exact.copy()
    other[:, :4, 0] += 100
    parts = compared_parts("v8", 2, exact, other)
    assert set(parts) == {"boxes", "scores"}
    assert all(np.array_equal(*pair) for pair in parts.values())
    other[:, :4, 1] += 100
    boxes, scores = (compared_parts("v8", 2, exact, other)[name] for name in ("boxes", "scores"))
    assert np.array_equal(*scores)
    assert not np.array_equal(*boxes)
    turned = compared_parts("v8", 2, exact, other)["boxes"][0]
    rows = np.concatenate([exact[:, :4], np.ones((2, 1, 5), np.float32), exact[:, 4:]], axis=1).swapaxes(1, 2)
    assert np.allclose(compared_parts("v5", 2, rows, rows)["boxes"][0], turned)
