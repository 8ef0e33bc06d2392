"""One factor for all scales is chosen by samples that were fitted to, and checked on samples held out."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import quantkit
from quantkit import QuantizeOptions
from quantkit.graph import Model, load_model
from quantkit.histogram import Histogram
from quantkit.output_noise import NoiseCandidate, NoiseMeter
from quantkit.preprocess import PRESETS
from quantkit.progress import Phases
from quantkit.qdq.insert import insert_qdq
from quantkit.qdq.placement import Choices
from quantkit.qdq.shared_scales import TypedScales
from quantkit.quantization import choice
from quantkit.quantization.choice_record import Gain, ScaleFactor
from quantkit.quantization.held_out import HeldOutMeter, HeldOutParts, open_feed
from quantkit.quantization.network_statistics import NetworkSamples, collect_network_statistics
from quantkit.quantization.repair_run import RepairedNetwork
from quantkit.quantization.rule_choice import Way, quantized_by_rule
from quantkit.quantization.scale_choice import choose_factor
from quantkit.quantization.scales import QuantizationScales
from quantkit.rules import Rule
from quantkit.rules.minmax import MinMax
from quantkit.values import QuantizedType
from tests.support.qdq import model_of

TEXT = "(float[N, 8] x) => (float[N, 16] y) { y = Gemm(x, w) }"
RANDOM = np.random.default_rng(0)
FITTED, HELD = 300, 200


@dataclass(frozen=True)
class Clipping:
    """A rule that clips at 1, whatever the values are."""

    name: str = "clipping"

    def threshold(self, histogram: Histogram) -> float:
        return 1.0 if histogram.amax else 0.0


def uniform(samples: int, largest: float) -> Any:
    """Inputs whose values fill the range up to the largest."""
    return RANDOM.uniform(-largest, largest, (samples, 8)).astype(np.float32)


def write_network(folder: Path) -> Model:
    weight = RANDOM.normal(size=(8, 16)).astype(np.float32)
    onnx.save(model_of(TEXT, 17, w=weight).proto, folder / "net.onnx")
    return load_model(folder / "net.onnx")


def data_of(folder: Path, name: str, values: Any) -> NetworkSamples:
    np.save(folder / f"{name}.npy", values)
    return NetworkSamples(folder / f"{name}.npy", PRESETS["raw"])


def chosen(folder: Path, rule: Rule, fitted: Any, held: Any) -> ScaleFactor | None:
    network = write_network(folder)
    parts = HeldOutParts(
        data_of(folder, "fitted", fitted), data_of(folder, "held", held), len(fitted), len(fitted) + len(held)
    )
    made = RepairedNetwork(network, collect_network_statistics(network, parts.fitting, frozenset(), Phases()))
    meter: HeldOutMeter[Way] = HeldOutMeter(network, parts.held)
    meter.measure({(rule.name, ()): lambda: quantized_by_rule(made, rule, Choices())}, Phases())
    return choose_factor(network, made, rule, parts, Choices(), meter, Phases())


def noise(network: Model, data: NetworkSamples, threshold: float) -> float:
    """SQNR of the network whose input is clipped at a threshold, computed without the choice."""
    proto = insert_qdq(network, {"x": threshold / 127}).proto
    quantized = replace(network, proto=proto, sha256="")
    return NoiseMeter(network, open_feed(network, data)).noise({"": NoiseCandidate(lambda: quantized)})[""].db


def test_scales_that_clip_too_much_are_made_larger_and_the_gain_is_that_of_unseen_samples(tmp_path: Path) -> None:
    found = chosen(tmp_path, Clipping(), uniform(FITTED, 1.3), uniform(HELD, 1.3))
    assert found is not None
    assert found.held is not None
    assert (found.kept, found.factor, found.samples) == (True, 1.1, 192)
    network, held = load_model(tmp_path / "net.onnx"), NetworkSamples(tmp_path / "held.npy", PRESETS["raw"])
    assert found.held.db == pytest.approx(noise(network, held, 1.1) - noise(network, held, 1.0), abs=1e-3)
    assert found.held.clear(2.0)
    assert "all × 1.1 +" in found.text
    assert not found.text.endswith("(left out)")


def test_scales_that_clip_nothing_stay_as_they_are(tmp_path: Path) -> None:
    found = chosen(tmp_path, MinMax(), uniform(FITTED, 1.0), uniform(HELD, 1.0))
    assert found is not None
    assert (found.kept, found.held) == (False, None)
    assert found.fitted.db < 0
    assert found.text.endswith("(left out)")


def test_a_factor_that_suits_only_what_it_was_chosen_by_is_left_out(tmp_path: Path) -> None:
    found = chosen(tmp_path, Clipping(), uniform(FITTED, 1.3), uniform(2000, 1.0))
    assert found is not None
    assert found.held is not None
    assert found.fitted.db > 0
    assert found.held.db < -2.0 * found.held.error
    assert not found.kept


def test_fewer_samples_choose_no_factor(tmp_path: Path) -> None:
    assert chosen(tmp_path, Clipping(), uniform(191, 1.3), uniform(HELD, 1.3)) is None


def test_a_rule_that_was_asked_for_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_network(tmp_path)
    given = data_of(tmp_path, "x", uniform(400, 1.0)).source
    factor = ScaleFactor(1.1, 192, Gain(0.5, 0.2), Gain(0.4, 0.3), kept=True)
    monkeypatch.setattr(choice, "choose_factor", lambda *_: factor)

    def made(**options: Any) -> Any:
        chosen = QuantizeOptions(**options)
        return quantkit.quantize(tmp_path / "net.onnx", data=given, preprocess="raw", options=chosen)

    assert made(rule="wmse").held_out.scales is None
    wider, asked = made(repairs=()), made(rule="wmse", repairs=())
    assert wider.pairs == {name: pytest.approx(1.1 * scale, rel=1e-6) for name, scale in asked.pairs.items()}
    assert wider.source == f"{asked.source}, times 1.1"
    record = json.loads(next(e.value for e in wider.proto.metadata_props if e.key == "quantkit.quantize"))
    assert record["scales"]["factor"] == 1.1
    assert record["held_out"]["scales"]["held"] == {"db": 0.4, "error": 0.3}
    assert wider.held_out.lines[0].endswith("; then all scales × 1.1; then fitted to all samples")
    assert "scales: all × 1.1 +0.5 ± 0.2 dB on 192 fitted samples, +0.4 ± 0.3 dB" in wider.held_out.lines[1]


def test_a_factor_leaves_scales_of_fp8_alone() -> None:
    scales = TypedScales({QuantizedType.INT8: {"x": 0.5}, QuantizedType.FP8: {"x": 0.25}})
    found = QuantizationScales(scales, "", {}).times(1.1).typed.by_type
    assert found == {QuantizedType.INT8: {"x": np.float32(0.55)}, QuantizedType.FP8: {"x": 0.25}}
    assert QuantizationScales(scales, "", {}).times(1.0).typed is scales
