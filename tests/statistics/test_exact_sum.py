"""Exact sums: the rounded sum of all floats, in any order and from any parts."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from quantkit.statistics.exact_sum import ExactSum

FLOATS = st.lists(st.floats(-1e200, 1e200), max_size=40)


def exact(values: list[float]) -> ExactSum:
    """The sum of floats, one after the other."""
    made = ExactSum()
    for value in values:
        made.add(value)
    return made


@given(FLOATS)
def test_the_sum_is_rounded_once(values: list[float]) -> None:
    assert exact(values).value == math.fsum(values)


@given(FLOATS, st.integers(0, 40), st.randoms(use_true_random=False))
def test_parts_in_any_order_add_up_to_the_same(values: list[float], cut: int, random: Any) -> None:
    whole = exact(values).value
    shuffled = random.sample(values, len(values))
    total = exact(shuffled[:cut])
    total.extend(exact(shuffled[cut:]).state())
    assert total.value == whole


def test_beyond_the_range_it_is_infinite_as_float_arithmetic_is() -> None:
    assert exact([1e308] * 3).value == math.inf
    assert exact([1.0, -math.inf, 2.0]).value == -math.inf
    assert math.isnan(exact([math.inf, -math.inf]).value)
    joined = exact([1.0])
    joined.extend(exact([1e308] * 3).state())
    assert joined.value == math.inf
