"""Scales and their words, against numpy's float32."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quantkit.numerics import LEVELS, float32, scale_of, scale_of_word, word_of

F32 = np.float32
HUGE = float(np.finfo(F32).max)
real = st.floats(allow_nan=False)
scales = st.floats(0.0, HUGE, width=32)


@given(real)
@example(HUGE * (1 + 2**-25))
@example(HUGE * (1 + 2**-26))
@example(2.0**-150)
@example(1 + 2**-24)
def test_float32_is_the_nearest_float32(value: float) -> None:
    with np.errstate(over="ignore", under="ignore"):
        assert repr(float32(value)) == repr(float(F32(value)))


@given(real)
@example(2.0**-149)
@example(127 * 2.0**-149)
@example(63.5 * 2.0**-149)
def test_a_scale_is_float32_arithmetic(threshold: float) -> None:
    with np.errstate(over="ignore", under="ignore"):
        assert repr(scale_of(threshold)) == repr(float(F32(threshold) / F32(LEVELS)))


@given(scales)
@example(0.0)
@example(2.0**-149)
def test_a_word_is_the_bits_and_leads_back(scale: float) -> None:
    word = word_of(scale)
    assert word == f"{int(np.array(scale, F32).view(np.uint32)):x}"
    assert repr(scale_of_word(word)) == repr(scale)


@given(scales, st.integers(0, 8), st.booleans())
def test_a_word_may_be_padded_and_in_capitals(scale: float, width: int, capitals: bool) -> None:
    word = word_of(scale).zfill(width)
    assert scale_of_word(word.upper() if capitals else word) == scale


@pytest.mark.parametrize(("threshold", "word"), [(1.0, "3c010204"), (6.0, "3d418306"), (0.0, "0"), (128.0, "3f810204")])
def test_words_that_tensorrt_wrote(threshold: float, word: str) -> None:
    assert word_of(scale_of(threshold)) == word


@pytest.mark.parametrize(
    "word", ["", " ", "g", "0x1", "-1", "+1", "1_0", " 1", "1 ", "3c010204 ", "03c010204", "1.5", "٣"]
)
def test_what_is_no_word_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="not a hexadecimal word"):
        scale_of_word(word)


@pytest.mark.parametrize("word", ["7f800000", "ff800000", "7fc00000", "ffffffff", "bc010204", "80000000", "80000001"])
def test_what_is_no_scale_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="finite and not negative"):
        scale_of_word(word)


@given(st.text(max_size=9))
def test_a_word_is_a_scale_or_a_value_error(word: str) -> None:
    try:
        scale = scale_of_word(word)
    except ValueError:
        return
    assert word_of(scale) == (word.lower().lstrip("0") or "0")
