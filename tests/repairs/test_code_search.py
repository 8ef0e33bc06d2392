"""The compiled search for codes finds the bits of its numpy twin, and refuses arrays that do not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from quantkit.repairs import code_search
from quantkit.repairs.code_search import CodeSearch, code_limits, numpy_compensate, numpy_descend

needs_compiled = pytest.mark.skipif(not code_search.COMPILED, reason="quantkit._rounding was not compiled")
SIZES = st.sampled_from([1, 2, 7, 63, 64, 65, 130])


@st.composite
def problems(draw: st.DrawFn) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights in steps [O, K], and a Gram matrix [K, K]: some inputs are silent, some weights lie on ties."""
    rows, size = draw(st.integers(1, 9)), draw(SIZES)
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = random.normal(size=(draw(st.integers(1, 80)), size)) + draw(st.sampled_from([0.0, 1.0]))
    x[:, random.random(size) < 0.1] = 0.0
    target = random.uniform(-127, 127, size=(rows, size))
    return (np.rint(2 * target) / 2 if draw(st.booleans()) else target), x.T @ x


@needs_compiled
@given(problems(), st.integers(0, 9))
@settings(max_examples=40)
def test_descent_is_the_same_to_the_last_bit(problem: Any, sweeps: int) -> None:
    target, gram = problem
    nearest = np.clip(np.rint(target), -127, 127)
    order = np.flatnonzero(np.diag(gram) > 0).astype(np.int64)
    found = []
    for descend in (numpy_descend, code_search.descend):
        codes, slope = nearest.copy(), (nearest - target) @ gram
        descend(codes, slope, gram, *code_limits(target, nearest), order, sweeps)
        found.append((codes, slope))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])


@needs_compiled
@given(problems(), st.data())
@settings(max_examples=40)
def test_compensation_is_the_same_to_the_last_bit(problem: Any, data: st.DataObject) -> None:
    target, _ = problem
    rows, size = target.shape
    start = data.draw(st.integers(0, size - 1))
    width = data.draw(st.integers(1, size - start))
    factor = np.triu(np.random.default_rng(size).normal(size=(width, width))) + 3 * np.eye(width)
    limits = code_limits(target, np.clip(np.rint(target), -127, 127))
    found = []
    for compensate in (numpy_compensate, code_search.compensate):
        left, codes, errors = target.copy(), np.zeros_like(target), np.empty((rows, width))
        compensate(left, codes, *limits, factor, errors, start)
        found.append((left, codes, errors))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@given(problems())
@settings(max_examples=25)
def test_energies_are_those_of_the_codes(problem: Any) -> None:
    weight, gram = problem
    scales = np.abs(weight).max(axis=1) / 127 + 1e-3
    found = CodeSearch(gram).codes(weight, scales)
    target = weight / scales[:, None]
    for codes, energies in ((found.codes, found.energies), (np.clip(np.rint(target), -127, 127), found.nearest)):
        error = codes - target
        exact = np.einsum("ok,kj,oj->o", error, gram, error)
        np.testing.assert_allclose(energies, exact, rtol=1e-6, atol=1e-9 * np.trace(gram))


@needs_compiled
def test_arrays_that_do_not_fit_are_refused() -> None:
    square, row, order = np.eye(3), np.zeros((2, 3)), np.arange(3)
    with pytest.raises(ValueError, match="gram is of the wrong size"):
        code_search.descend(row, row.copy(), np.zeros(8), row, row, order, 1)
    with pytest.raises(ValueError, match="codes, slope, least or most"):
        code_search.descend(row, np.zeros(5), square, row, row, order, 1)
    for wrong in (-1, 3):
        with pytest.raises(ValueError, match="a column in order"):
            code_search.descend(row, row.copy(), square, row, row, np.array([wrong]), 1)
    with pytest.raises(ValueError, match="inverse"):
        code_search.compensate(row, row.copy(), row, row, np.zeros(5), np.zeros((2, 2)), 0)
    with pytest.raises(ValueError, match="left is of the wrong size"):
        code_search.compensate(row, row.copy(), row, row, np.eye(2), np.zeros((2, 2)), 2)
    with pytest.raises(ValueError, match="left, codes, least or most"):
        code_search.compensate(row, np.zeros(5), row, row, np.eye(2), np.zeros((2, 2)), 0)
