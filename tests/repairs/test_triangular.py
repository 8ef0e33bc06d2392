"""Factors in the place of a matrix are those that numpy computes, in one block and in several."""

from __future__ import annotations

import numpy as np
import pytest

from quantkit.repairs.triangular import BLOCK, factorise, invert_lower


@pytest.mark.parametrize("size", [1, 7, BLOCK, BLOCK + 1, 3 * BLOCK - 5])
def test_factors_and_inverses_are_numpys(size: int) -> None:
    rows = np.random.default_rng(size).standard_normal((2 * size + 8, size))
    matrix = rows.T @ rows
    factor = matrix.copy()
    factorise(factor)
    np.testing.assert_allclose(factor, np.linalg.cholesky(matrix), rtol=1e-9, atol=1e-9 * np.abs(factor).max())
    inverse = factor.copy()
    invert_lower(inverse)
    assert not np.triu(inverse, 1).any()
    np.testing.assert_allclose(inverse @ factor, np.eye(size), atol=1e-9)


def test_a_matrix_that_is_not_positive_is_refused() -> None:
    with pytest.raises(np.linalg.LinAlgError):
        factorise(np.diag([1.0, -1.0]))


def test_a_view_with_turned_rows_is_factorised_in_its_place() -> None:
    whole = np.diag(np.arange(1.0, 2 * BLOCK))
    factorise(whole[::-1, ::-1])
    np.testing.assert_allclose(whole, np.diag(np.sqrt(np.arange(1.0, 2 * BLOCK))))
