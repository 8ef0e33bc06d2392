"""The kernel's laws, for numpy and for the compiled twin, and that the two agree to the last element and bit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from quantkit import kernel
from quantkit.kernel import BINS, DIGIT_BITS, DIGITS, EMPTY, add_exactly, double_range, merge_sums, sum_values

F32 = np.float32
TINY, HUGE = float(np.finfo(F32).smallest_subnormal), float(np.finfo(F32).max)
SIZES = [0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 128, 143, 144, 1023, 1024, 1025, 1040, 2047, 2048, 2049, 8192, 20_000]


@dataclass(frozen=True)
class Kernel:
    extremes: Any
    observe: Any
    channel_sums: Any
    gather: Any


NUMPY = Kernel(kernel.numpy_extremes, kernel.numpy_observe, kernel.numpy_channel_sums, kernel.numpy_gather)
COMPILED = Kernel(kernel.extremes, kernel.observe, kernel.channel_sums, kernel.gather) if kernel.COMPILED else None
needs_compiled = pytest.mark.skipif(COMPILED is None, reason="quantkit._kernel was not compiled")
both = pytest.mark.parametrize("k", [NUMPY, pytest.param(COMPILED, marks=needs_compiled)], ids=["numpy", "compiled"])
modes = pytest.mark.parametrize("invariant", [False, True], ids=["tensorrt", "invariant"])

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
special = st.sampled_from(
    [0.0, -0.0, TINY, -TINY, 3 * TINY, HUGE, -HUGE, HUGE / 2, 1.0, -1.0, 0.5, 2.0**-126, 2.0**127]
)


@st.composite
def edges(draw: st.DrawFn) -> list[float]:
    """A range, and float32 values at and beside edges of its bins."""
    r = abs(draw(finite))
    at = [F32(r / BINS * j) for j in draw(st.lists(st.integers(0, BINS), max_size=4))]
    beside = [np.nextafter(v, F32(side)) for v in at for side in (0.0, r)]
    return [r, *map(float, at), *map(float, beside)]


@st.composite
def activations(draw: st.DrawFn, sizes: st.SearchStrategy[int] = st.sampled_from(SIZES)) -> np.ndarray:  # noqa: B008
    """float32 values of one slice: drawn from a few awkward ones, or normal at any magnitude."""
    n, rng = draw(sizes), np.random.default_rng(draw(st.integers(0, 2**32)))
    if draw(st.booleans()):
        palette = np.array(draw(edges() | st.lists(special | finite, min_size=1, max_size=6)), F32)
        return rng.choice(palette, n)
    return (rng.normal(size=n) * 2.0 ** draw(st.integers(-140, 120))).astype(F32)


few = activations(st.integers(0, 40))


def observed(k: Kernel, parts: list[np.ndarray], invariant: bool) -> tuple[np.ndarray, np.ndarray]:
    counts, state = np.zeros(BINS + 1, np.int64), np.array([0.0, np.inf, -np.inf])
    for part in parts:
        assert k.observe(part, counts, state, invariant)
    return counts, state


def expected_range(parts: list[np.ndarray], invariant: bool) -> Fraction:
    peaks = [Fraction(float(np.abs(p).max())) for p in parts if p.size and np.abs(p).max() > 0]
    if not peaks:
        return Fraction(0)
    if invariant:
        return Fraction(2) ** math.frexp(float(max(peaks)))[1]
    return peaks[0] * 2 ** max(0, math.ceil(math.log2(max(peaks) / peaks[0])))


def summed(values: np.ndarray) -> np.ndarray:
    """The exact sums of float64 [sums, n]."""
    sums = np.zeros((len(values), DIGITS + 1), np.int64)
    sums[:, 0] = EMPTY
    add_exactly(sums, values)
    return sums


# ── extremes ────────────────────────────────────────────────────────────────────────────────────────────────────────


@both
@given(x=activations())
def test_extremes_are_minimum_and_maximum(k: Kernel, x: np.ndarray) -> None:
    assert k.extremes(x) == ((float(min(x)), float(max(x)), True) if x.size else (0.0, 0.0, True))


@both
@modes
@pytest.mark.parametrize("word", [0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFFFFFFF])
@given(size=st.sampled_from(SIZES[1:]), data=st.data())
def test_nan_and_infinity_are_refused_wherever_they_are(k: Kernel, invariant: bool, word: int, size: int, data) -> None:
    x = np.full(size, data.draw(st.sampled_from([0.0, 1.0, -HUGE])), F32)
    x[data.draw(st.integers(0, size - 1))] = np.array([word], np.uint32).view(F32)[0]
    state = np.array([0.0, np.inf, -np.inf])
    assert k.extremes(x)[2] is False
    assert k.observe(x, np.zeros(BINS + 1, np.int64), state, invariant) is False


# ── the histogram ───────────────────────────────────────────────────────────────────────────────────────────────────


@both
@modes
@given(parts=st.lists(few, max_size=4))
@example(parts=[np.array([1.0], F32), np.array([1.0, 1.5], F32)])
@example(parts=[np.array([TINY], F32), np.array([-HUGE], F32)])
def test_a_bin_is_the_floor_of_the_exact_quotient(k: Kernel, invariant: bool, parts: list[np.ndarray]) -> None:
    counts, state = observed(k, parts, invariant)
    range_ = expected_range(parts, invariant)
    assert Fraction(state[0]) == range_
    expected = np.zeros(BINS + 1, np.int64)
    for value in np.concatenate([np.zeros(0, F32), *parts]):
        expected[math.floor(abs(Fraction(float(value))) * BINS / range_) if range_ else 0] += 1
    assert counts.tolist() == expected.tolist()


@both
@given(odd=st.integers(2**22, 2**23 - 1).map(lambda i: 2 * i + 1), exponent=st.integers(-149, 104), side=st.booleans())
def test_a_value_a_hair_beside_an_edge_stays_on_its_side(k: Kernel, odd: int, exponent: int, side: bool) -> None:
    """For R = odd there is one edge n of which a float32 value lies as near as one can: x·2048/R = n ∓ 1/R."""
    edge = pow(odd if side else -odd, -1, BINS)
    x = (edge * odd - (1 if side else -1)) // BINS
    counts, state = observed(k, [np.ldexp(F32([odd]), exponent), np.ldexp(F32([x]), exponent)], False)
    assert state[0] == odd * 2.0**exponent
    assert np.flatnonzero(counts).tolist() == [edge - side, BINS]


@both
@modes
@given(parts=st.lists(activations(), min_size=1, max_size=3))
def test_every_value_is_counted_once_and_extremes_are_exact(
    k: Kernel, invariant: bool, parts: list[np.ndarray]
) -> None:
    counts, (range_, low, high) = observed(k, parts, invariant)
    values = np.concatenate(parts)
    assert counts.min() >= 0
    assert counts.sum() == values.size
    assert (low, high) == ((values.min(), values.max()) if values.size else (np.inf, -np.inf))
    assert Fraction(range_) == expected_range(parts, invariant)


@given(filled=st.dictionaries(st.integers(0, BINS), st.integers(1, 2**50)))
@example(filled=dict.fromkeys(range(BINS + 1), 1))
def test_doubling_the_range_moves_bin_j_to_half_j(filled: dict[int, int]) -> None:
    halved = np.array([filled.get(j, 0) for j in range(BINS + 1)], np.int64)
    double_range(halved)
    expected = [0] * (BINS + 1)
    for j, count in filled.items():
        expected[j // 2] += count
    assert halved.tolist() == expected


@needs_compiled
@modes
@given(parts=st.lists(activations(), min_size=1, max_size=3))
@example(parts=[np.repeat(np.array([1.0, 1.5], F32), 1024)])
@example(parts=[np.full(300_001, 1.0, F32)])  # more than the 16-bit sub-histograms hold of one bin
@example(parts=[np.array([0.0, -0.0], F32), np.array([-0.0, 0.0], F32)])
def test_compiled_and_numpy_count_the_same(invariant: bool, parts: list[np.ndarray]) -> None:
    ours, theirs = observed(COMPILED, parts, invariant), observed(NUMPY, parts, invariant)
    assert ours[0].tolist() == theirs[0].tolist()
    assert ours[1].tobytes() == theirs[1].tobytes()


@needs_compiled
@given(x=activations())
@example(x=np.array([0.0, -0.0], F32))
@example(x=np.array([-0.0, 0.0], F32))
def test_compiled_and_numpy_find_the_same_extremes(x: np.ndarray) -> None:
    assert list(map(repr, COMPILED.extremes(x))) == list(map(repr, NUMPY.extremes(x)))


# ── exact sums ──────────────────────────────────────────────────────────────────────────────────────────────────────

doubles = st.floats(min_value=-(2.0**300), max_value=2.0**300, allow_subnormal=False).filter(
    lambda v: v == 0 or abs(v) > 2.0**-300
)
near = st.floats(-256, 256, width=32).filter(lambda v: v == 0 or abs(v) >= 2**-8)
"""Three digits of 32 bits hold every bit of these, and of their squares."""


def kept(values: list[float]) -> Fraction:
    """Σ values, each cut (towards zero) below the third digit from the largest."""
    top = max((math.frexp(v)[1] - 1) // DIGIT_BITS for v in values if v) if any(values) else 0
    unit = Fraction(2) ** (DIGIT_BITS * (top - DIGITS + 1))
    return unit * sum(math.trunc(Fraction(v) / unit) for v in values)


@given(st.lists(near, max_size=30))
def test_sums_are_correctly_rounded(values: list[float]) -> None:
    assert sum_values(summed(np.array([values], np.float64)))[0] == math.fsum(values)


@given(st.lists(doubles, max_size=30))
def test_only_what_lies_below_three_digits_is_cut(values: list[float]) -> None:
    assert sum_values(summed(np.array([values], np.float64)))[0] == float(kept(values))


@given(st.lists(doubles, min_size=1, max_size=30), st.data())
def test_order_and_grouping_do_not_matter(values: list[float], data: st.DataObject) -> None:
    whole = summed(np.array([values]))
    shuffled = data.draw(st.permutations(values))
    cut = data.draw(st.integers(0, len(values)))
    left, right = (summed(np.array([part])) for part in (shuffled[:cut], shuffled[cut:]))
    assert summed(np.array([shuffled])).tolist() == whole.tolist()
    assert merge_sums(left, right).tolist() == merge_sums(right, left).tolist() == whole.tolist()


@given(st.lists(doubles, max_size=9), st.lists(doubles, max_size=9))
def test_merging_leaves_its_arguments_alone(a: list[float], b: list[float]) -> None:
    left, right = summed(np.array([a])), summed(np.array([b]))
    before = left.tolist(), right.tolist()
    merge_sums(left, right)
    assert (left.tolist(), right.tolist()) == before


# ── sums per channel ────────────────────────────────────────────────────────────────────────────────────────────────


def channel_figures(k: Kernel, parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Ranges and sums of parts [units, rows, channels, inner]."""
    channels = parts[0].shape[2]
    ranges = np.tile(np.array([[np.inf, -np.inf]], F32), (channels, 1))
    sums = np.zeros((channels, 2, DIGITS + 1), np.int64)
    sums[..., 0] = EMPTY
    for part in parts:
        k.channel_sums(np.ascontiguousarray(part), *part.shape, ranges, sums)
    return ranges, sums


shapes = st.tuples(st.integers(1, 4), st.integers(1, 20), st.integers(1, 5), st.just(1)) | st.tuples(
    st.integers(1, 4), st.just(1), st.integers(1, 5), st.integers(1, 40)
)


@st.composite
def blocks(draw: st.DrawFn, elements: st.SearchStrategy[float]) -> np.ndarray:
    """float32 [units, rows, channels, inner], one of rows and inner 1."""
    shape, palette = draw(shapes), draw(st.lists(elements, min_size=1, max_size=8))
    return np.random.default_rng(draw(st.integers(0, 2**32))).choice(np.array(palette, F32), shape)


@both
@given(x=blocks(st.integers(-4096, 4096).map(lambda i: i / 16)))
def test_channel_figures_are_exact_where_float64_is(k: Kernel, x: np.ndarray) -> None:
    ranges, sums = channel_figures(k, [x])
    by_channel = np.moveaxis(x, 2, 0).reshape(x.shape[2], -1).astype(np.float64)
    assert ranges.tolist() == [[min(c), max(c)] for c in by_channel]
    assert sum_values(sums).tolist() == [[math.fsum(c), math.fsum(c * c)] for c in by_channel]


@both
@given(x=blocks(finite), data=st.data())
def test_units_may_come_in_any_order_and_any_parts(k: Kernel, x: np.ndarray, data: st.DataObject) -> None:
    whole = channel_figures(k, [x])[1]
    order = data.draw(st.permutations(range(len(x))))
    assert channel_figures(k, [x[[i]] for i in order])[1].tolist() == whole.tolist()
    assert channel_figures(k, [x[order]])[1].tolist() == whole.tolist()


@both
@pytest.mark.parametrize("shape", [(0, 1, 3, 5), (2, 1, 3, 0), (0, 4, 3, 1), (2, 0, 3, 1)])
def test_a_block_without_values_adds_nothing(k: Kernel, shape: tuple[int, ...]) -> None:
    x, nothing = np.ones((2, 1, 3, 5), F32), np.zeros(shape, F32)
    for ours, theirs in zip(channel_figures(k, [nothing, x, nothing]), channel_figures(k, [x]), strict=True):
        assert ours.tolist() == theirs.tolist()


@needs_compiled
@given(x=blocks(finite | special))
@example(x=np.array([0.0, -0.0], F32).reshape(1, 2, 1, 1))
@example(x=np.array([-0.0, 0.0], F32).reshape(1, 1, 1, 2))
@example(x=np.logspace(0, -20, 50, dtype=F32).reshape(1, 50, 1, 1))
@example(x=np.logspace(0, -20, 50, dtype=F32).reshape(1, 1, 1, 50))
def test_compiled_and_numpy_add_to_the_same_bits(x: np.ndarray) -> None:
    ours, theirs = channel_figures(COMPILED, [x, x]), channel_figures(NUMPY, [x, x])
    assert ours[0].tobytes() == theirs[0].tobytes()
    assert ours[1].tolist() == theirs[1].tolist()


# ── pixels through a table ──────────────────────────────────────────────────────────────────────────────────────────


@st.composite
def views(draw: st.DrawFn, array: np.ndarray) -> np.ndarray:
    """The array in other memory: axes in any order, some reversed, every second element of something larger."""
    order, flipped = draw(st.permutations(range(3))), draw(st.tuples(*[st.booleans()] * 3))
    apart = draw(st.tuples(*[st.integers(1, 2)] * 3))
    flips = tuple(slice(None, None, -1 if flip else 1) for flip in flipped)
    memory = np.zeros([array.shape[axis] * apart[axis] for axis in order], array.dtype)
    view = memory.transpose(np.argsort(order))[tuple(slice(None, None, step) for step in apart)][flips]
    view[...] = array
    return view


images = array_shapes(min_dims=3, max_dims=3, min_side=0, max_side=6).flatmap(lambda shape: arrays(np.uint8, shape))


@st.composite
def tables(draw: st.DrawFn, depth: int) -> np.ndarray:
    """float32 [depth, 256] of any bits, NaN and -0 among them."""
    seed = draw(st.integers(0, 2**32))
    return np.random.default_rng(seed).integers(0, 2**32, (depth, 256), dtype=np.uint32).view(F32)


@both
@given(pixels=images, data=st.data())
def test_every_pixel_is_replaced_by_its_channels_value(k: Kernel, pixels: np.ndarray, data: st.DataObject) -> None:
    table = data.draw(tables(pixels.shape[2]))
    out = data.draw(views(np.zeros(pixels.shape, F32)))
    k.gather(data.draw(views(pixels)), table, out)
    for h, w, c in np.ndindex(pixels.shape):
        assert out[h, w, c].tobytes() == table[c, pixels[h, w, c]].tobytes()


@both
@given(data=st.data())
def test_what_lies_beside_the_output_is_left_alone(k: Kernel, data: st.DataObject) -> None:
    memory, place = np.full((5, 6, 4), 7, F32), (slice(1, 4), slice(2, 5), slice(1, 3))
    k.gather(np.zeros((3, 3, 2), np.uint8), data.draw(tables(2)), memory[place])
    memory[place] = 7
    assert (memory == 7).all()


@needs_compiled
@given(shape=st.tuples(st.integers(1, 70), st.integers(1, 70), st.integers(1, 4)), nchw=st.booleans(), data=st.data())
def test_compiled_and_numpy_look_up_the_same_bits(shape: tuple[int, int, int], nchw: bool, data: st.DataObject) -> None:
    table = data.draw(tables(shape[2]))
    pixels = np.random.default_rng(data.draw(st.integers(0, 2**32))).integers(0, 256, shape, dtype=np.uint8)
    found = []
    for k in (COMPILED, NUMPY):
        out = np.zeros((shape[2], *shape[:2]) if nchw else shape, F32)
        k.gather(pixels[..., ::-1], table, out.transpose(1, 2, 0) if nchw else out)
        found.append(out.tobytes())
    assert found[0] == found[1]


@needs_compiled
@pytest.mark.parametrize(
    ("pixels", "out"),
    [
        (np.zeros((2, 3, 2), np.uint8), np.zeros((3, 2, 2), F32)),
        (np.zeros((2, 3, 2), np.uint8), np.zeros((2, 3, 2), np.int32)),
        (np.zeros((2, 3, 2), np.uint8), np.zeros((2, 3, 2), np.float64)),
        (np.zeros((2, 3, 2), np.int8), np.zeros((2, 3, 2), F32)),
        (np.zeros((2, 3), np.uint8), np.zeros((2, 3), F32)),
    ],
)
def test_the_compiled_lookup_refuses_other_arrays(pixels: np.ndarray, out: np.ndarray) -> None:
    with pytest.raises(ValueError, match="of the same shape"):
        COMPILED.gather(pixels, np.zeros((2, 256), F32), out)


@needs_compiled
def test_the_compiled_lookup_refuses_a_table_of_other_channels_and_an_output_it_may_not_write() -> None:
    pixels, out = np.zeros((2, 3, 2), np.uint8), np.zeros((2, 3, 2), F32)
    with pytest.raises(ValueError, match="table holds 1024 bytes, not 2048"):
        COMPILED.gather(pixels, np.zeros((1, 256), F32), out)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        COMPILED.gather(pixels, np.zeros((2, 256), F32), out)


@needs_compiled
def test_the_compiled_kernel_refuses_buffers_of_other_sizes() -> None:
    x, state = np.zeros(8, F32), np.zeros(3)
    with pytest.raises(ValueError, match="counts holds"):
        COMPILED.observe(x, np.zeros(BINS, np.int64), state, True)
    with pytest.raises(ValueError, match="state holds"):
        COMPILED.observe(x, np.zeros(BINS + 1, np.int64), np.zeros(2), True)
    with pytest.raises(ValueError, match="x holds"):
        COMPILED.channel_sums(x, 1, 1, 3, 3, np.zeros((3, 2), F32), np.zeros((3, 2, 4), np.int64))
    with pytest.raises(ValueError, match="rows or inner"):
        COMPILED.channel_sums(x, 1, 2, 2, 2, np.zeros((2, 2), F32), np.zeros((2, 2, 4), np.int64))
