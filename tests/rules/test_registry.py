"""Rules by name, and what holds for every rule."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import quantkit
import quantkit.rules
from quantkit.calibration.tables import header_for
from quantkit.cli import invoke
from quantkit.cli.calibrate import calibrate as calibrate_command
from quantkit.cli.layers import layers as layers_command
from quantkit.cli.map import draw_map as map_command
from quantkit.cli.quantize import quantize as quantize_command
from quantkit.cli.stats import table
from quantkit.errors import UsageError
from quantkit.histogram import BINS, Histogram
from quantkit.rules import (
    DEFAULT_RULE,
    WHY_DEFAULT_RULE,
    Rule,
    SelectingRule,
    as_rules,
    kind_of,
    parse_rule,
    parse_rules,
    rule_kinds,
    rule_of_calibrator,
)
from quantkit.rules.entropy import Entropy
from quantkit.rules.minmax import MinMax
from quantkit.rules.mse import Mse
from quantkit.rules.percentile import Percentile
from quantkit.values import Algorithm
from tests.support.histograms import any_counts, histogram

F32 = np.float32


keeps = st.floats(0.0, 100.0, exclude_min=True) | st.sampled_from([50.0, 99.0, 99.9, 99.99, 99.999, 100.0])
RULES = [rule for kind in rule_kinds().values() if not isinstance(rule := kind.rule(), SelectingRule)]
RULES.append(Percentile(50.0))
all_rules = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)


@all_rules
def test_a_tensor_of_zeros_has_threshold_0(rule) -> None:
    assert rule.threshold(Histogram(histogram({0: 100}).counts, 0.0, -0.0, 0.0)) == 0.0
    assert rule.threshold(Histogram(np.zeros(BINS, np.int64), 0.0, 0.0, 0.0)) == 0.0


@all_rules
@given(counts=any_counts, exponent=st.integers(-100, 100))
def test_thresholds_are_float32_and_scale_with_the_values(rule, counts: np.ndarray, exponent: int) -> None:
    threshold = rule.threshold(histogram(counts, float(BINS)))
    assert threshold == float(F32(threshold))
    assert rule.threshold(histogram(counts, BINS * 2.0**exponent)) == threshold * 2.0**exponent


@all_rules
def test_a_rule_is_found_by_its_name(rule) -> None:
    assert parse_rule(rule.name) == rule
    assert parse_rules(f" {rule.name} ") == (rule,)


@given(keeps)
@example(0.00001)
@example(99)
@example(np.float64(99.9))
def test_every_percentile_is_found_by_its_name(keep: float) -> None:
    assert parse_rule(Percentile(keep).name) == Percentile(keep)


def test_a_list_of_rules_keeps_its_order() -> None:
    assert parse_rules("mse, percentile,entropy,percentile:99.9") == (
        Mse(), Percentile(99.99), Entropy(), Percentile(99.9),
    )  # fmt: skip


@pytest.mark.parametrize(
    "text", ["", "kl", "Entropy", "entropy ", "percentile:", "percentile:x", "percentile:-1", "percentile:1e1",
             "percentile:nan", "percentile:99.99:1", "entropy:1"]
)  # fmt: skip
def test_an_unknown_rule_is_refused_with_what_there_is(text: str) -> None:
    with pytest.raises(UsageError, match=r"unknown rule(.|\n)*wmse, mse, best, percentile:99.99, entropy, minmax"):
        parse_rule(text)


@pytest.mark.parametrize("text", ["percentile:0", "percentile:100.01", "percentile:1000"])
def test_an_impossible_percentile_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not in"):
        parse_rule(text)


@pytest.mark.parametrize("text", ["", ",", "entropy,", "entropy,,mse", "entropy;mse"])
def test_a_list_with_gaps_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="unknown rule"):
        parse_rules(text)


@pytest.mark.parametrize("text", ["mse,mse", "percentile,percentile:99.99", "percentile:99.9,percentile:99.90"])
def test_a_rule_that_is_named_twice_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="named twice"):
        parse_rules(text)


HALF = """
from dataclasses import dataclass
from quantkit.rules import RuleKind

@dataclass(frozen=True)
class Half:
    part: float = 0.5

    @property
    def name(self):
        return f"half:{self.part:g}"

    def threshold(self, histogram):
        return self.part * histogram.amax

KIND = RuleKind("half", Half, "a part of the largest value", example="half:0.5", parse=lambda text: Half(float(text)))
"""


@pytest.fixture
def half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One more file in the folder of the rules."""
    (tmp_path / "half.py").write_text(HALF)
    monkeypatch.setattr(quantkit.rules, "__path__", [*quantkit.rules.__path__, str(tmp_path)])
    rule_kinds.cache_clear()
    yield
    rule_kinds.cache_clear()
    sys.modules.pop("quantkit.rules.half")


@pytest.mark.usefixtures("half")
def test_a_rule_is_one_file() -> None:
    assert list(rule_kinds()) == ["wmse", "mse", "best", "percentile", "entropy", "minmax", "half"]
    assert parse_rule("half:0.25").threshold(histogram({8: 1})) == 0.25 * 8.5
    assert header_for(parse_rule("half"), 8601).text == "TRT-8601-EntropyCalibration2"
    with pytest.raises(UsageError, match=r"unknown rule 'half:x'(.|\n)*minmax, half:0.5"):
        parse_rule("half:x")


def test_every_rule_is_called_as_its_file() -> None:
    for name, kind in rule_kinds().items():
        assert (kind.name, kind.rule.__module__) == (name, f"quantkit.rules.{name}")
        assert parse_rule(kind.usage) == kind.rule()


class Own:
    """A rule of the user's own, which no file of the folder holds."""

    name = "own"

    def threshold(self, histogram: Histogram) -> float:
        return histogram.amax


def test_a_rule_of_the_users_own_needs_no_kind() -> None:
    (rule,) = as_rules(Own())
    assert kind_of(rule).calibrators == frozenset()
    assert header_for(rule, 8601).text == "TRT-8601-EntropyCalibration2"
    with pytest.raises(UsageError, match="holds a percentile, but the rule is own"):
        header_for(rule, 8601, Algorithm.LEGACY)


@pytest.mark.parametrize(
    ("algorithm", "rule"),
    [
        (Algorithm.ENTROPY_2, Entropy()),
        (Algorithm.ENTROPY, Entropy()),
        (Algorithm.MIN_MAX, MinMax()),
        (Algorithm.LEGACY, Percentile(99.9)),
    ],
)
def test_every_calibrator_of_tensorrt_has_its_rule(algorithm: Algorithm, rule: Rule) -> None:
    assert rule_of_calibrator(algorithm, 0.999) == rule
    assert algorithm in kind_of(rule).calibrators


@pytest.mark.parametrize(
    "line",
    [
        "calibrate model.onnx --data images --limit 8 -o best.calib",
        "stats table model.stats.safetensors -o from-stats.calib",
        "quantize model.onnx -o best.onnx",
        "layers model.onnx",
    ],
)
def test_every_command_takes_the_rule_best(line: str, calibrated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(calibrated)
    assert invoke([*line.split(), "--rule", "best", "--json"]) == 0
    assert parse_rules("best,mse")[0].name == "best"


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundled network, its images and statistics."""
    place, data = tmp_path_factory.mktemp("rules"), Path(__file__).parents[2] / "calibration_data"
    (place / "images").symlink_to(data / "images")
    for name in ("model.onnx", "preprocess.toml"):
        (place / name).write_bytes((data / name).read_bytes())
    quantkit.calibrate(place / "model.onnx", data / "images", limit=8, output=place / "model.calib")
    return place


def test_every_command_and_verb_has_the_same_default_rule() -> None:
    """`run` and `tune` have none of their own: a file may name the rule of `run`, and `tune` tries all.

    `quantize` takes the default where no data choose.
    """
    commands = {"calibrate": calibrate_command, "quantize": quantize_command, "layers": layers_command}
    commands |= {"stats table": table, "map": map_command}
    options = {name: {p.name: p for p in command.params}["rule"] for name, command in commands.items()}
    expected = dict.fromkeys(commands, DEFAULT_RULE) | {"quantize": None}
    assert {name: option.default for name, option in options.items()} == expected
    assert all(WHY_DEFAULT_RULE in (getattr(option, "help", None) or "") for option in options.values())
    verbs = (quantkit.calibrate, quantkit.layers)
    assert [inspect.signature(verb).parameters["rule"].default for verb in verbs] == [DEFAULT_RULE] * len(verbs)
    assert (quantkit.QuantizeOptions().rule, quantkit.MapOptions().rule) == (None, DEFAULT_RULE)
