"""A table beside a network: scales that follow from the network are TensorRT's, to the last bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from quantkit.backends.tensorrt.network import NetworkTensor
from quantkit.backends.tensorrt.table_coverage import (
    CompletedTable,
    complete_table,
    describe_inner,
    refuse_low_coverage,
    table_rule,
)
from quantkit.errors import TableError
from quantkit.numerics import scale_of, word_of
from quantkit.rules import Rule
from quantkit.rules.entropy import Entropy
from quantkit.rules.minmax import MinMax
from quantkit.rules.mse import Mse
from quantkit.rules.percentile import Percentile
from quantkit.table import Algorithm, CalibrationTable, Header, read_table

HEADER = Header(Algorithm.ENTROPY_2, 8600)


def table(**scales: float) -> CalibrationTable:
    return CalibrationTable(HEADER, scales)


WEIGHT = "(Unnamed Layer* {}) [Constant]_output"
SHUFFLE = "(Unnamed Layer* {}) [Shuffle]_output"
GOLDEN = [
    ("resnet20", "entropy2", "10.fc", (56, "3b35d688"), (58, "3aed6c43")),
    ("resnet20", "minmax", "10.fc", (56, "3b51dd45"), (58, "3aed5d6d")),
    ("mobilenetv2", "entropy2", "19.fc", (104, "3a547ffc"), (106, "3bb3346a")),
    ("mobilenetv2", "minmax", "19.fc", (104, "3a5fcf89"), (106, "3bb32937")),
]


@pytest.mark.shared
@pytest.mark.parametrize(("network", "kind", "layer", "weight", "bias"), GOLDEN)
def test_constants_get_the_scale_that_tensorrt_wrote(
    shared: Path, network: str, kind: str, layer: str, weight: tuple[int, str], bias: tuple[int, str]
) -> None:
    whole = read_table(shared / "golden" / "networks" / f"{network}_{kind}.cache")
    proto = onnx.load(shared / "models" / f"{network}.onnx")
    values = {i.name: numpy_helper.to_array(i) for i in proto.graph.initializer}
    (w, w_word), (b, b_word) = weight, bias
    names = [WEIGHT.format(w), WEIGHT.format(b), SHUFFLE.format(b + 1)]
    tensors = [
        *(NetworkTensor(name) for name in whole.scales if name not in names),
        NetworkTensor(names[0], values[f"{layer}.weight"]),
        NetworkTensor(names[1], values[f"{layer}.bias"]),
        NetworkTensor(names[2], same_as=names[1]),
    ]
    lacking = CalibrationTable(whole.header, {n: s for n, s in whole.scales.items() if n not in names})
    covered = complete_table(lacking, tensors, table_rule(lacking, None))
    assert [word_of(covered.table.scales[name]) for name in names] == [w_word, b_word, b_word]
    assert covered.table.scales == whole.scales
    assert (covered.completed, covered.missing, covered.extra, covered.share) == (tuple(names), (), (), 1.0)
    assert covered.table.header == whole.header


def test_a_scale_that_is_there_stays() -> None:
    tensors = [NetworkTensor("a", np.ones(3, np.float32)), NetworkTensor("b", same_as="a")]
    covered = complete_table(table(a=0.25, b=0.5), tensors, MinMax())
    assert covered.table.scales == {"a": 0.25, "b": 0.5}
    assert covered.completed == ()


@pytest.mark.parametrize("rule", [Entropy(), MinMax(), Mse(), Percentile(99.9)])
def test_a_constant_of_zeros_and_one_without_values(rule: Rule) -> None:
    tensors = [NetworkTensor("zero", np.zeros(3, np.float32)), NetworkTensor("none", np.zeros(0, np.float32))]
    covered = complete_table(table(), tensors, rule)
    assert covered.table.scales == {"zero": scale_of(1.0)}
    assert covered.missing == ("none",)


def test_a_tensor_that_was_zero_throughout_gets_a_scale_that_builds() -> None:
    """TensorRT 8.6 divides biases by the scales of input and weights, in float32: that product must not be 0."""
    tensors = [NetworkTensor("a"), NetworkTensor("b"), NetworkTensor("c", same_as="b")]
    covered = complete_table(table(a=0.5, b=0.0, gone=0.0), tensors, MinMax())
    assert covered.zero == ("b",)
    assert covered.table.scales["a"] == 0.5
    assert all(np.float32(covered.table.scales[name]) * np.float32(1e-30) > 0 for name in "abc")


@pytest.mark.parametrize("rule", [Entropy(), MinMax(), Mse(), Percentile(99.9)])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_constant_that_is_not_finite_stays_without_a_scale(rule: Rule, value: float) -> None:
    tensors = [NetworkTensor("bad", np.float32([1.0, value])), NetworkTensor("reshaped", same_as="bad")]
    covered = complete_table(table(), tensors, rule)
    assert (covered.table.scales, covered.missing, covered.completed) == ({}, ("bad", "reshaped"), ())


def test_a_constant_of_one_value_is_kept_by_min_max() -> None:
    covered = complete_table(table(), [NetworkTensor("c", np.float32([-3.0]))], MinMax())
    assert covered.table.scales == {"c": scale_of(3.0)}


CHAIN = [
    NetworkTensor("a"),
    NetworkTensor("b", same_as="a"),
    NetworkTensor("c", same_as="b"),
    NetworkTensor("d", same_as="c"),
]


@pytest.mark.parametrize("known", ["a", "d"])
def test_a_scale_follows_reshapes_forward_and_backward(known: str) -> None:
    covered = complete_table(table(**{known: 0.5}), CHAIN, Entropy())
    assert covered.table.scales == dict.fromkeys("abcd", 0.5)
    assert set(covered.completed) == set("abcd") - {known}
    assert covered.missing == ()


def test_a_scale_follows_reshapes_out_of_the_middle() -> None:
    fork = [*CHAIN, NetworkTensor("e", same_as="a")]
    assert complete_table(table(c=0.5), CHAIN, Entropy()).missing == ()
    assert complete_table(table(c=0.5), fork, Entropy()).missing == ()


def test_a_reshape_of_something_that_is_no_tensor_of_the_table_adds_nothing_to_the_lists() -> None:
    covered = complete_table(table(b=0.5), [NetworkTensor("b", same_as="integers")], Entropy())
    assert (covered.completed, covered.missing, covered.extra, covered.share) == ((), (), (), 1.0)


@given(st.sets(st.sampled_from("abcdefgh")), st.sets(st.sampled_from("abcdefgh"), min_size=1))
def test_missing_and_extra_and_share(scaled: set[str], there: set[str]) -> None:
    covered = complete_table(
        table(**dict.fromkeys(sorted(scaled), 0.5)), [NetworkTensor(n) for n in sorted(there)], Entropy()
    )
    assert covered.missing == tuple(sorted(there - scaled))
    assert covered.extra == tuple(sorted(scaled - there))
    assert covered.expected == len(there)
    assert covered.share == pytest.approx(len(there & scaled) / len(there))


@given(st.sets(st.sampled_from("abcd")), st.sets(st.sampled_from("abcdef"), min_size=1))
def test_only_what_calibration_observes_tells_of_another_network(scaled: set[str], observed: set[str]) -> None:
    """TensorRT's own tensors, as inside a HardSwish, and floats made of shapes are in no table."""
    tensors = [NetworkTensor(n) for n in ("a", "b", "c", "(Unnamed Layer* 1) [Activation]_output", "shape")]
    covered = complete_table(table(**dict.fromkeys(sorted(scaled), 0.5)), tensors, Entropy(), observed)
    assert covered.missing == tuple(n for n in "abc" if n in observed - scaled)
    assert set(covered.unscaled) == {t.name for t in tensors} - scaled
    assert set(covered.inner) == set(covered.unscaled) - observed
    expected = observed & set("abc")
    assert covered.share == pytest.approx(len(expected & scaled) / len(expected) if expected else 0.0)


@pytest.mark.parametrize(("count", "begin"), [(1, "1 tensor exists only in"), (2, "2 tensors exist only in")])
def test_tensors_that_only_tensorrt_has_are_one_note(count: int, begin: str) -> None:
    (note,) = describe_inner([f"t{number}" for number in range(count)])
    assert note.startswith(begin)
    assert describe_inner([]) == ()


def test_little_coverage_is_refused_with_names() -> None:
    missing = tuple("abcdef")
    covered = CompletedTable(table(), 10, missing, (), (), ())
    refuse_low_coverage(covered, 0.4, "t.calib")
    with pytest.raises(TableError, match=r"t\.calib covers 40% of the network's 10 .* a, b, c, d, e …") as caught:
        refuse_low_coverage(covered, 0.41, "t.calib")
    assert "--min-coverage" in caught.value.remedy
    with pytest.raises(TableError, match=r"missing: a\n"):
        refuse_low_coverage(CompletedTable(table(), 2, ("a",), (), (), ()), 0.9, "t")


@pytest.mark.parametrize(
    ("header", "told", "rule"),
    [
        (Header(Algorithm.ENTROPY_2, 8601), None, Entropy()),
        (Header(Algorithm.ENTROPY, 8601), None, Entropy()),
        (Header(Algorithm.MIN_MAX, 8601), None, MinMax()),
        (Header(Algorithm.LEGACY, quantile=0.9999), None, Percentile(99.99)),
        (Header(Algorithm.ENTROPY_2, 8601), "percentile:99.9", Percentile(99.9)),
        (Header(Algorithm.ENTROPY_2, 8601), "mse", Mse()),
    ],
)
def test_the_rule_of_a_table(header: Header, told: str | None, rule: Rule) -> None:
    assert table_rule(CalibrationTable(header, {}), told) == rule


@given(st.integers(1, 10**6))
def test_the_quantile_of_a_header_is_that_of_its_rule(parts: int) -> None:
    header = Header(Algorithm.LEGACY, quantile=parts / 10**6)
    rule = table_rule(CalibrationTable(header, {}), None)
    assert isinstance(rule, Percentile)
    assert rule == Percentile(float(rule.name.partition(":")[2]))
    assert rule.quantile == header.quantile
