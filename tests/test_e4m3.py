"""FP8 (E4M3) against ml_dtypes and onnx's own cast, and its laws."""

from __future__ import annotations

import ml_dtypes
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from quantkit.numerics import E4M3_LARGEST, e4m3_codes, e4m3_steps, e4m3_values, round_to_e4m3

CODES = np.arange(256, dtype=np.uint8)
FINITE = CODES[(CODES & 0x7F) != 0x7F]
inside = st.floats(-E4M3_LARGEST, E4M3_LARGEST, width=32)


def test_every_code_has_its_value() -> None:
    np.testing.assert_array_equal(e4m3_values(CODES), CODES.view(ml_dtypes.float8_e4m3fn).astype(np.float32))
    np.testing.assert_array_equal(e4m3_codes(e4m3_values(FINITE)), FINITE)


def test_ties_go_to_the_even_code_as_in_ml_dtypes() -> None:
    values = np.unique(e4m3_values(FINITE))
    ties = ((values[:-1] + values[1:]) / 2).astype(np.float32)
    expected = ties.astype(ml_dtypes.float8_e4m3fn)
    np.testing.assert_array_equal(round_to_e4m3(ties), expected.astype(np.float32))
    np.testing.assert_array_equal(e4m3_codes(ties), expected.view(np.uint8))


@given(x=st.lists(inside, min_size=1, max_size=40))
def test_numbers_round_as_in_ml_dtypes(x: list[float]) -> None:
    values = np.array(x, np.float32)
    np.testing.assert_array_equal(e4m3_codes(values), values.astype(ml_dtypes.float8_e4m3fn).view(np.uint8))


@given(x=st.floats(E4M3_LARGEST, 2.0**100, width=32))
def test_what_is_too_large_saturates(x: float) -> None:
    """Unlike ml_dtypes, which makes NaN of it; QuantizeLinear saturates."""
    np.testing.assert_array_equal(round_to_e4m3(np.array([x, -x], np.float32)), [E4M3_LARGEST, -E4M3_LARGEST])


@given(x=inside)
def test_the_nearest_value_is_at_most_half_a_step_away(x: float) -> None:
    value = np.array([x], np.float32)
    error = abs(float(round_to_e4m3(value)[0]) - float(value[0]))
    assert error <= float(e4m3_steps(np.abs(value))[0]) / 2
    assert error <= max(abs(x) / 16, 2.0**-10)
