"""Types by sensitivity: which layers go to FP8, the mixes that are tried, and what `tune` makes of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import quantkit
from quantkit.data import DataOptions
from quantkit.data.splitting import HoldoutPart
from quantkit.errors import UsageError
from quantkit.graph import load_model
from quantkit.output_noise import OutputNoise
from quantkit.quantization.choice_record import Gain
from quantkit.quantization.held_out import MeasuredNoise
from quantkit.quantization.rule_choice import CLEAR
from quantkit.sensitivity.exclusion_file import expand_name_files
from quantkit.tuning import tune as tuning
from quantkit.tuning.candidates import TuningSource
from quantkit.tuning.figure import Figure
from quantkit.tuning.options import RULES, TuneOptions
from quantkit.tuning.result import Tuning
from quantkit.tuning.search import least_loss
from quantkit.tuning.trial import Recipe, Trial, TrialStatus
from quantkit.tuning.tune import tune
from quantkit.tuning.type_mix import LayerTypes, compare_types, gain_on_the_other_half, leaders_of_adds, mixes_of
from quantkit.values import NetworkType, QuantizedType
from tests.support.networks import BUNDLED

MODEL, IMAGES = BUNDLED / "model.onnx", BUNDLED / "images"
LAYER = "block3/project/conv"
"""A convolution of the bundled network that has an FP8 kernel; nothing else reads its input."""


def noise_of(energies: Sequence[float]) -> OutputNoise:
    """Return the noise of an output whose signal is 1 for every sample."""
    noise = np.asarray(energies, np.float64)
    share = float(noise.mean())
    return OutputNoise(share, 0.0, {"y": share}, {"y": (np.ones(len(noise)), noise)})


def measured(energies: Sequence[float]) -> MeasuredNoise:
    return MeasuredNoise(noise_of(energies).energies)


def test_a_difference_counts_on_the_half_that_chooses() -> None:
    rng = np.random.default_rng(0)
    same = rng.uniform(0.01, 0.02, 64)
    better = compare_types("a", "Conv", noise_of(same), noise_of(same / 4))
    assert better.is_candidate
    assert better.gain.db == pytest.approx(10 * np.log10(4))
    assert better.saved == pytest.approx(same[::2].mean() * 3 / 4)
    assert not compare_types("a", "Conv", noise_of(same / 4), noise_of(same)).is_candidate
    assert not compare_types("a", "Conv", noise_of(same), noise_of(same)).is_candidate
    swapped = same.copy()
    swapped[1::2] /= 100  # better on the samples that do not choose
    assert not compare_types("a", "Conv", noise_of(same), noise_of(swapped)).is_candidate


def test_a_mix_is_confirmed_on_the_other_half() -> None:
    same = np.random.default_rng(0).uniform(0.01, 0.02, 64)
    seen, unseen, one = same.copy(), same.copy(), same.copy()
    seen[::2] /= 4
    unseen[1::2] /= 4
    one[1] *= 100
    assert gain_on_the_other_half(measured(seen), measured(same)).db == 0.0
    assert gain_on_the_other_half(measured(unseen), measured(same)).clear(CLEAR)
    assert not gain_on_the_other_half(measured(same), measured(one)).clear(CLEAR)  # one sample decides


def layer(node: str, saved: float, error: float = 0.1) -> LayerTypes:
    return LayerTypes(node, "Conv", 30.0, 33.0, Gain(3.0 if saved > 0 else -3.0, error), saved)


def test_mixes_are_few_and_begin_with_what_saves_most() -> None:
    assert mixes_of([]) == ()
    assert mixes_of([layer("a", -1.0), layer("b", 5.0, error=4.0)]) == ()
    assert mixes_of([layer("a", 1.0)]) == (("a",),)
    figures = [layer("a", 0.01), layer("b", 10.0), layer("c", -1.0), layer("d", 0.02)]
    assert mixes_of(figures) == (("b",), ("b", "d", "a"))
    assert mixes_of([layer(str(k), 1.0) for k in range(4)]) == (("0", "1", "2", "3"),)


def test_a_mix_that_is_not_better_than_its_error_is_not_chosen() -> None:
    def trial(drop: float, fp8: tuple[str, ...] = (), error: float = 0.3) -> Trial:
        figure = Figure(0.9, drop, drop - error, drop + error, error)
        return Trial(Recipe("mse", fp8=fp8), "types", "", TrialStatus.OVER, 30.0, figure)

    int8, mix = trial(2.0), trial(1.8, ("a",))
    assert least_loss([int8, mix]) is int8
    assert least_loss([int8, better := trial(1.0, ("a",))]) is better
    assert least_loss([trial(3.0), int8]) is int8


def test_an_add_goes_with_the_convolution_in_front_of_it() -> None:
    made = leaders_of_adds(
        load_model(MODEL).proto, {n.name for n in onnx.load(MODEL).graph.node if n.op_type == "Conv"}
    )
    assert made["block1/add"] == "block1/b/conv"


# ── tune ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def broken() -> quantkit.Statistics:
    """Statistics in which the input of `LAYER` reaches 60 times as far: INT8 loses six bits there, FP8 none."""
    found = quantkit.calibrate(MODEL, IMAGES, rules="minmax", backend="onnxruntime", limit=64).statistics
    assert found is not None
    tensor = next(node.input[0] for node in onnx.load(MODEL).graph.node if node.name == LAYER)
    h = found.histograms[tensor]
    wide = replace(h, range=h.range * 60, minimum=h.minimum * 60, maximum=h.maximum * 60)
    return replace(found, histograms={**found.histograms, tensor: wide})


OPTIONS: dict[str, Any] = {"rules": "minmax", "repairs": (), "front": False}


@pytest.fixture(scope="module")
def mixed(broken: quantkit.Statistics, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tuning, Path]:
    folder = tmp_path_factory.mktemp("mixed") / "out"
    options = TuneOptions(type="mixed", **OPTIONS)  # type: ignore[arg-type]
    return tune(MODEL, IMAGES, max_drop=2.0, statistics=broken, output=folder, options=options), folder


def test_the_layer_that_int8_breaks_is_fp8(mixed: tuple[Tuning, Path]) -> None:
    made, _ = mixed
    assert [trial.step for trial in made.trials] == ["rule", "types"]
    assert made.untuned.drop > made.max_drop
    assert made.chosen.recipe.fp8 == (LAYER,)
    assert (made.held, made.within_budget, made.chosen.recipe.kept) == (True, True, ())
    assert made.type_counts == (13, 1, 0)
    assert "operators with weights: 13 INT8, 1 FP8, 0 float" in made.verdict
    assert made.evaluations == 6  # float, INT8 and the mix, on both parts


def test_the_files_name_the_types(mixed: tuple[Tuning, Path], broken: quantkit.Statistics) -> None:
    made, folder = mixed
    names = {"model.mixed.onnx", "model.exclude", "model.fp8", "tune.json"}
    assert {path.name for path in made.files} == {path.name for path in folder.iterdir()} == names
    record = json.loads((folder / "tune.json").read_text())
    assert (record["type"], record["types"][LAYER], record["types"]["stem/conv"]) == ("mixed", "fp8", "int8")
    assert record["type_counts"] == {"int8": 13, "fp8": 1, "float": 0}
    assert record["chosen"]["fp8"] == [LAYER]
    assert record["deploy"]["model"] == "model.mixed.onnx"
    alone = replace(made, types=dict.fromkeys(made.types, "fp8"))
    assert alone.deployment["model"] == "model.fp8.onnx", "by what it holds"
    (own,) = (each for each in record["layer_types"] if each["node"] == LAYER)
    assert own["candidate"]
    assert own["fp8_db"] > own["int8_db"] + 10
    fp8 = expand_name_files([f"@{folder / 'model.fp8'}"])
    again = quantkit.quantize(MODEL, statistics=broken, rule="minmax", repairs=(), fp8=fp8)
    written = load_model(folder / "model.mixed.onnx")
    assert [node.SerializeToString() for node in again.proto.graph.node] == [
        node.SerializeToString() for node in written.proto.graph.node
    ]
    assert LAYER in made._repr_html_()


def test_int8_is_the_answer_where_it_keeps_the_budget(mixed: tuple[Tuning, Path], tmp_path: Path) -> None:
    options = TuneOptions(type="mixed", **OPTIONS)  # type: ignore[arg-type]
    made = tune(MODEL, IMAGES, max_drop=2.0, output=tmp_path / "out", options=options)
    assert made.chosen.recipe.fp8 == ()
    assert made.network_type is NetworkType.INT8
    assert "all layers in INT8" in made.verdict
    assert any(note.startswith("INT8 is chosen: all layers in INT8 keep the budget") for note in made.notes)
    assert {path.name for path in made.files} >= {"model.int8.onnx", "model.calib"}


def test_fp8_alone_has_its_own_rules_and_no_table(broken: quantkit.Statistics, tmp_path: Path) -> None:
    options = TuneOptions(type="fp8", front=False)  # type: ignore[arg-type]
    assert "entropy" not in options.rules
    assert options.repairs == ("bias",)
    made = tune(MODEL, IMAGES, max_drop=2.0, statistics=broken, output=tmp_path / "out", options=options)
    assert made.type_counts == (0, 10, 4)
    assert set(made.types.values()) == {"fp8", "float"}
    assert "all layers in FP8" in made.verdict
    assert {path.name for path in made.files} == {"model.fp8.onnx", "model.exclude", "tune.json"}
    assert made.report.models[-1].name == "FP8 tuned"


def test_types_are_compared_on_the_part_to_tune_on(
    broken: quantkit.Statistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[TuningSource] = []

    def stop(source: TuningSource, *_: Any) -> Any:
        seen.append(source)
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning, "CandidateFactory", stop)
    options = TuneOptions(type=NetworkType.MIXED, holdout=0.3, data=DataOptions(limit=40))
    with pytest.raises(KeyboardInterrupt):
        tune(MODEL, IMAGES, max_drop=2.0, statistics=broken, options=options)
    assert seen[0].trial_data == IMAGES
    assert seen[0].trial_options.part == HoldoutPart(0.3, False, 40)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"type": "fp4"}, "unknown network type 'fp4'"),
        ({"type": "fp8", "rules": "entropy"}, "the rule entropy counts the levels of INT8"),
        ({"type": "fp8", "repairs": ("round",)}, "the repair 'round' is for INT8"),
        ({"type": "mixed", "tensorrt_version": "8.6.1"}, "TensorRT 8 has no FP8"),
        ({"type": "mixed", "objective": "latency"}, "times engines with INT8 and float layers, none with FP8"),
    ],
)
def test_what_is_refused(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError) as error:
        TuneOptions(**options)
    assert expected in str(error.value)
    assert TuneOptions().rules == TuneOptions(type=NetworkType.MIXED).rules == RULES
    assert TuneOptions(type=NetworkType.FP8).quantize.type is QuantizedType.FP8
