"""Estimates from neighbours: what was measured is itself, what lies between lies between, what is far is unknown."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantkit.gpu_profile.estimate import FAR, border_costs, distance, estimate_among
from quantkit.gpu_profile.operator_size import OperatorKind, OperatorSize
from quantkit.gpu_profile.profile import BorderTime, OperatorTime

SIZES = st.builds(
    OperatorSize, st.sampled_from(list(OperatorKind)), st.integers(1, 4096), st.integers(1, 4096),
    st.integers(1, 2**20), st.sampled_from([1, 3, 5, 7]), st.sampled_from([1, 2]), st.sampled_from([0, 1, 24]),
    st.booleans(),
)  # fmt: skip


def row(size: OperatorSize, fp16: float, int8: float) -> OperatorTime:
    return OperatorTime(
        kind=size.kind.value, inputs=size.inputs, outputs=size.outputs, rows=size.rows, kernel=size.kernel,
        stride=size.stride, width=size.width, curved=size.curved, fp16=fp16, int8=int8,
    )  # fmt: skip


@given(SIZES, st.floats(1, 1000), st.floats(1, 1000))
def test_what_was_measured_is_estimated_as_measured(size: OperatorSize, fp16: float, int8: float) -> None:
    found = estimate_among([row(size, fp16, int8)], size)
    assert found is not None
    assert (found.fp16, found.int8, found.distance) == (pytest.approx(fp16), pytest.approx(int8), 0)


@given(SIZES, st.lists(st.tuples(st.integers(-1, 1), st.floats(1, 99), st.floats(1, 99)), min_size=1, max_size=9))
def test_the_gain_lies_between_those_of_the_neighbours(
    size: OperatorSize, times: list[tuple[int, float, float]]
) -> None:
    rows = [row(replace(size, rows=max(1, int(size.rows * 2**step))), a, b) for step, a, b in times]
    found = estimate_among(rows, size)
    gains = [r.fp16 / r.int8 for r in rows]
    assert found is not None
    assert min(gains) * 0.999 <= found.fp16 / found.int8 <= max(gains) * 1.001


@given(SIZES, SIZES)
def test_a_distance_is_one(a: OperatorSize, b: OperatorSize) -> None:
    assert distance(a, a) == 0
    assert distance(a, b) == pytest.approx(distance(b, a))
    assert distance(a, b) >= 0
    assert a.kind is b.kind or distance(a, b) == math.inf


@given(SIZES)
def test_what_is_far_from_everything_is_unknown(size: OperatorSize) -> None:
    far = replace(size, outputs=size.outputs * 64, inputs=size.inputs * 64)
    assert distance(size, far) > FAR
    assert estimate_among([row(far, 5, 3)], size) is None
    assert estimate_among([], size) is None


@given(
    st.lists(st.tuples(st.integers(10, 10**8), st.floats(0, 50), st.floats(-5, 50)), max_size=8), st.integers(0, 10**9)
)
def test_borders_are_never_a_gain(rows: list[tuple[int, float, float]], values: int) -> None:
    made = [BorderTime(values=v, quantize=q, dequantize=d) for v, q, d in rows]
    assert all(0 <= cost < math.inf for cost in border_costs(made, values))
    if rows and values:
        largest = max(v for v, _, _ in rows)
        within = border_costs(made, largest)
        assert border_costs(made, 2 * largest) == pytest.approx([2 * cost for cost in within])
