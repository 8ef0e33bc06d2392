"""A table beside a network: scales that follow from the network are TensorRT's, to the last bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from quantkit.backends.tensorrt.network import Tensor
from quantkit.backends.tensorrt.table_coverage import Covered, completed, refuse_little, rule_of
from quantkit.errors import TableError
from quantkit.numerics import scale_of, word_of
from quantkit.rules import Entropy, MinMax, Mse, Percentile, Rule
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
        *(Tensor(name) for name in whole.scales if name not in names),
        Tensor(names[0], values[f"{layer}.weight"]),
        Tensor(names[1], values[f"{layer}.bias"]),
        Tensor(names[2], same_as=names[1]),
    ]
    lacking = CalibrationTable(whole.header, {n: s for n, s in whole.scales.items() if n not in names})
    covered = completed(lacking, tensors, rule_of(lacking, None))
    assert [word_of(covered.table.scales[name]) for name in names] == [w_word, b_word, b_word]
    assert covered.table.scales == whole.scales
    assert (covered.completed, covered.missing, covered.extra, covered.share) == (tuple(names), (), (), 1.0)
    assert covered.table.header == whole.header


def test_a_scale_that_is_there_stays() -> None:
    tensors = [Tensor("a", np.ones(3, np.float32)), Tensor("b", same_as="a")]
    covered = completed(table(a=0.25, b=0.5), tensors, MinMax())
    assert covered.table.scales == {"a": 0.25, "b": 0.5}
    assert covered.completed == ()


@pytest.mark.parametrize("rule", [Entropy(), MinMax(), Mse(), Percentile(99.9)])
def test_a_constant_of_zeros_and_one_without_values(rule: Rule) -> None:
    tensors = [Tensor("zero", np.zeros(3, np.float32)), Tensor("none", np.zeros(0, np.float32))]
    covered = completed(table(), tensors, rule)
    assert covered.table.scales == {"zero": 0.0}
    assert covered.missing == ("none",)


@pytest.mark.parametrize("rule", [Entropy(), MinMax(), Mse(), Percentile(99.9)])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_constant_that_is_not_finite_stays_without_a_scale(rule: Rule, value: float) -> None:
    tensors = [Tensor("bad", np.float32([1.0, value])), Tensor("reshaped", same_as="bad")]
    covered = completed(table(), tensors, rule)
    assert (covered.table.scales, covered.missing, covered.completed) == ({}, ("bad", "reshaped"), ())


def test_a_constant_of_one_value_is_kept_by_min_max() -> None:
    covered = completed(table(), [Tensor("c", np.float32([-3.0]))], MinMax())
    assert covered.table.scales == {"c": scale_of(3.0)}


CHAIN = [Tensor("a"), Tensor("b", same_as="a"), Tensor("c", same_as="b"), Tensor("d", same_as="c")]


@pytest.mark.parametrize("known", ["a", "d"])
def test_a_scale_follows_reshapes_forward_and_backward(known: str) -> None:
    covered = completed(table(**{known: 0.5}), CHAIN, Entropy())
    assert covered.table.scales == dict.fromkeys("abcd", 0.5)
    assert set(covered.completed) == set("abcd") - {known}
    assert covered.missing == ()


def test_a_scale_follows_reshapes_out_of_the_middle() -> None:
    fork = [*CHAIN, Tensor("e", same_as="a")]
    assert completed(table(c=0.5), CHAIN, Entropy()).missing == ()
    assert completed(table(c=0.5), fork, Entropy()).missing == ()


def test_a_reshape_of_something_that_is_no_tensor_of_the_table_adds_nothing_to_the_lists() -> None:
    covered = completed(table(b=0.5), [Tensor("b", same_as="integers")], Entropy())
    assert (covered.completed, covered.missing, covered.extra, covered.share) == ((), (), (), 1.0)


@given(st.sets(st.sampled_from("abcdefgh")), st.sets(st.sampled_from("abcdefgh"), min_size=1))
def test_missing_and_extra_and_share(scaled: set[str], there: set[str]) -> None:
    covered = completed(table(**dict.fromkeys(sorted(scaled), 0.5)), [Tensor(n) for n in sorted(there)], Entropy())
    assert covered.missing == tuple(sorted(there - scaled))
    assert covered.extra == tuple(sorted(scaled - there))
    assert covered.tensors == len(there)
    assert covered.share == pytest.approx(len(there & scaled) / len(there))


def test_little_coverage_is_refused_with_names() -> None:
    missing = tuple("abcdef")
    covered = Covered(table(), 10, (), missing, ())
    refuse_little(covered, 0.4, "t.calib")
    with pytest.raises(TableError, match=r"t\.calib covers 40% of the network's 10 .* a, b, c, d, e …") as caught:
        refuse_little(covered, 0.41, "t.calib")
    assert "--min-coverage" in caught.value.remedy
    with pytest.raises(TableError, match=r"missing: a\n"):
        refuse_little(Covered(table(), 2, (), ("a",), ()), 0.9, "t")


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
    assert rule_of(CalibrationTable(header, {}), told) == rule


@given(st.integers(1, 10**6))
def test_the_quantile_of_a_header_is_that_of_its_rule(parts: int) -> None:
    header = Header(Algorithm.LEGACY, quantile=parts / 10**6)
    rule = rule_of(CalibrationTable(header, {}), None)
    assert isinstance(rule, Percentile)
    assert rule == Percentile(float(rule.name.partition(":")[2]))
    assert rule.quantile == header.quantile
