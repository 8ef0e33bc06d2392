"""Rules against literal definitions: TensorRT's entropy search in loops, a cumulative share, an exhaustive search."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from quantkit.errors import UsageError
from quantkit.histogram import BINS, Histogram
from quantkit.rules import parse_rule, parse_rules
from quantkit.rules.best import Best
from quantkit.rules.entropy import ENTROPY_LEVELS, Entropy, entropy_bins, level_edges
from quantkit.rules.minmax import MinMax
from quantkit.rules.mse import Mse
from quantkit.rules.percentile import Percentile
from quantkit.rules.squared_error import squared_error, squared_errors

F32 = np.float32


def histogram(counts: np.ndarray | dict[int, int], range_: float = BINS) -> Histogram:
    """A histogram whose values lie in the middle of their bins."""
    if isinstance(counts, dict):
        counts = np.bincount(list(counts), weights=list(counts.values()), minlength=BINS)
    filled = np.flatnonzero(counts)
    amax = (filled[-1] + 0.5) * range_ / BINS if filled.size else 0.0
    return Histogram(counts.astype(np.int64), range_ if amax else 0.0, -amax, 0.0)


@st.composite
def smooth(draw: st.DrawFn) -> np.ndarray:
    """Counts as activations have them: |x| of a common distribution, with zeros and outliers in some."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n = draw(st.sampled_from([300, 5_000, 200_000]))
    kinds = [rng.normal, rng.laplace, rng.standard_exponential, rng.lognormal, rng.uniform]
    x = np.abs(draw(st.sampled_from(kinds))(size=n)) ** draw(st.sampled_from([1.0, 1.0, 0.5, 2.0, 3.0]))
    x[rng.random(n) < draw(st.sampled_from([0.0, 0.0, 0.5, 0.95]))] = 0.0
    if draw(st.booleans()):
        x[: draw(st.integers(1, 20))] *= draw(st.floats(1.0, 50.0))
    room = x.max() * draw(st.floats(1.0, 2.0)) + 1e-30
    return np.bincount((x * BINS / room).astype(int).clip(0, BINS - 1), minlength=BINS)


spikes = st.dictionaries(st.integers(0, BINS - 1), st.integers(1, 2**40), min_size=1, max_size=8).map(
    lambda filled: histogram(filled).counts
)


@st.composite
def rough(draw: st.DrawFn) -> np.ndarray:
    """Random counts, many of them zero, on a random stretch of bins."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    counts = rng.integers(0, draw(st.sampled_from([2, 5, 1000])), BINS) * (rng.random(BINS) < draw(st.floats(0.01, 1)))
    low, high = sorted(draw(st.tuples(st.integers(0, BINS), st.integers(0, BINS))))
    counts[:low] = counts[high:] = 0
    counts[draw(st.integers(0, BINS - 1))] += 1
    return counts


any_counts = smooth() | spikes | rough()


# ── entropy ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def divergences(counts: np.ndarray) -> dict[int, float]:
    """Candidate i → KL(P‖Q), for every candidate that TensorRT admits, word for word."""
    h = counts.astype(np.float64)
    h[0] = h[1]
    found = {}
    for i in range(128, 2048 + 1):
        q = h[:i].copy()
        p = q.copy()
        p[i - 1] += h[i:].sum()
        filled = q > 0
        if filled.sum() < 2 or (p[i - 1] > 0 and q[i - 1] == 0):
            continue
        level = np.arange(i) * 128 // i
        mass, share = np.bincount(level, weights=q), np.bincount(level, weights=filled)
        q[filled] = (mass[level] / np.maximum(share[level], 1))[filled]
        p, q = p[filled] / p.sum(), q[filled] / q.sum()
        found[i] = float((p * np.log(p / q)).sum())
    return found


@settings(max_examples=40)
@given(counts=any_counts)
@example(counts=np.ones(BINS, np.int64))
@example(counts=np.arange(BINS))
@example(counts=np.full(BINS, 2**50))
@example(counts=histogram({511: 9, 1023: 9, 1535: 9, 2047: 9}).counts)
@example(counts=histogram({0: 10**12, 1: 1, 2047: 1}).counts)
@example(counts=histogram({1: 10**15, 100: 3, 2000: 1}).counts)
def test_entropy_keeps_the_bins_of_the_least_divergence(counts: np.ndarray) -> None:
    found, kept = divergences(counts), entropy_bins(counts)
    least = max((i for i in found), key=lambda i: (-found[i], i), default=BINS)
    assert kept == least or found[kept] == pytest.approx(found[least], rel=0, abs=1e-12)


@given(counts=any_counts, exponent=st.integers(-120, 100))
def test_the_entropy_threshold_lies_half_a_bin_beyond(counts: np.ndarray, exponent: int) -> None:
    h = histogram(counts, 2.0**exponent)
    assert Entropy().threshold(h) == float(F32((entropy_bins(counts) + 0.5) * 2.0**exponent / BINS))


@given(counts=any_counts)
def test_zeros_do_not_matter_to_entropy(counts: np.ndarray) -> None:
    more = counts.copy()
    more[0] += 1_000_000
    assert entropy_bins(more) == entropy_bins(counts)


@pytest.mark.parametrize("bin_", [0, 1, 127, 128, 1024, 2047])
def test_a_constant_keeps_all_bins(bin_: int) -> None:
    counts = histogram({bin_: 77}).counts
    counts = counts + histogram({0: 5}).counts  # zeros beside the constant are no second value
    assert entropy_bins(counts) == (BINS if bin_ != 1 else entropy_bins(histogram({1: 77}).counts))


def test_of_equal_divergences_the_larger_candidate_is_taken() -> None:
    two = histogram({511: 100, 1023: 100}).counts
    assert divergences(two) == dict.fromkeys(range(1024, BINS + 1), 0.0)  # every candidate that holds both
    assert entropy_bins(two) == BINS


def test_the_words_that_are_known_of_tensorrt() -> None:
    """0.5 throughout; uniform pixels 0 … 255 over 255: the search ends at 2048, half a bin beyond the maximum."""
    assert Entropy().threshold(histogram({BINS - 1: 65536}, 0.5)) == 0.5 * (BINS + 0.5) / BINS
    pixels = np.bincount(np.minimum(np.arange(256) * BINS // 255, BINS - 1), minlength=BINS)
    assert Entropy().threshold(histogram(pixels, 1.0)) == (BINS + 0.5) / BINS


def test_levels_are_the_floor_of_j_times_128_over_i() -> None:
    candidates, edges = level_edges()
    assert candidates.tolist() == list(range(ENTROPY_LEVELS, BINS + 1))
    for i, bounds in zip(candidates.tolist(), edges, strict=True):
        level = np.repeat(np.arange(ENTROPY_LEVELS), np.diff(bounds))
        assert level.tolist() == (np.arange(i) * ENTROPY_LEVELS // i).tolist()


# ── percentile, minmax ──────────────────────────────────────────────────────────────────────────────────────────────

keeps = st.floats(0.0, 100.0, exclude_min=True) | st.sampled_from([50.0, 99.0, 99.9, 99.99, 99.999, 100.0])


def percentile_bin(counts: np.ndarray, quantile: float) -> int:
    """First bin whose cumulative share reaches the quantile."""
    total, below = sum(counts.tolist()), 0
    for b, count in enumerate(counts.tolist()):
        below += count
        if below / total >= quantile:
            return b
    raise AssertionError


@given(counts=any_counts, keep=keeps, exponent=st.integers(-120, 100))
@example(counts=histogram({0: 9999, 2047: 1}).counts, keep=99.99, exponent=0)
@example(counts=histogram({0: 9998, 2047: 2}).counts, keep=99.99, exponent=0)
def test_percentile_is_the_upper_edge_where_the_share_is_reached(
    counts: np.ndarray, keep: float, exponent: int
) -> None:
    h = histogram(counts, 2.0**exponent)
    quantile = float(Fraction(repr(keep)) / 100)  # 99.99 means the double 0.9999
    edge = (percentile_bin(counts, quantile) + 1) * 2.0**exponent / BINS
    assert Percentile(keep).threshold(h) == float(F32(edge))


@given(counts=any_counts, a=keeps, b=keeps)
def test_percentile_is_monotone_and_ends_in_the_bin_of_the_maximum(counts: np.ndarray, a: float, b: float) -> None:
    h = histogram(counts)
    low, high, all_ = (Percentile(keep).threshold(h) for keep in (min(a, b), max(a, b), 100.0))
    assert 0.0 < low <= high <= all_
    assert h.amax <= all_ <= h.amax + h.width


@pytest.mark.parametrize("keep", [0.0, -1.0, 100.1, math.nan, math.inf])
def test_a_percentile_beyond_0_to_100_is_refused(keep: float) -> None:
    with pytest.raises(UsageError, match="percentile"):
        Percentile(keep)


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(ends=st.tuples(finite, finite).map(sorted))
def test_minmax_is_the_largest_magnitude(ends: list[float]) -> None:
    assert MinMax().threshold(Histogram(np.zeros(BINS, np.int64), 0.0, *ends)) == max(map(abs, ends))


# ── mse ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def exhaustive_error(counts: np.ndarray, edge: int, samples: int = 64) -> float:
    """Squared error, in bins², of clipping at `edge` and rounding to 127 steps, on values spread over every bin."""
    filled = np.flatnonzero(counts)
    x = filled[:, None] + (np.arange(samples) + 0.5) / samples
    step = edge / 127
    error = x - np.clip(np.rint(x / step), 0, 127) * step
    return float(counts[filled] @ (error * error).mean(axis=1))


@given(counts=any_counts, edge=st.integers(1, BINS))
def test_the_squared_error_is_that_of_quantizing_the_values(counts: np.ndarray, edge: int) -> None:
    expected = exhaustive_error(counts, edge, 4096)
    assert squared_errors(counts, np.array([edge]))[0] == pytest.approx(expected, rel=1e-3)


@given(counts=any_counts)
@example(counts=histogram({800: 1000, 1000: 1}).counts)
def test_mse_is_within_two_percent_of_the_best_edge(counts: np.ndarray) -> None:
    h = histogram(counts)
    last = math.ceil(h.amax / h.width)
    errors = np.concatenate([squared_errors(counts, e) for e in np.array_split(np.arange(1, last + 1), last // 64 + 1)])
    chosen = round(Mse().threshold(h) / h.width + 0.25)  # amax stands for the edge of its bin
    assert errors[chosen - 1] <= 1.02 * errors.min()


@given(counts=any_counts, exponent=st.integers(-120, 100))
def test_mse_is_positive_and_never_above_the_maximum(counts: np.ndarray, exponent: int) -> None:
    h = histogram(counts, 2.0**exponent)
    assert 0.0 < Mse().threshold(h) <= h.amax


# ── the best of them ────────────────────────────────────────────────────────────────────────────────────────────────


def error_on_values(counts: np.ndarray, width: float, threshold: float, samples: int) -> float:
    """Mean squared error of clipping and rounding `samples` values spread over every bin."""
    filled = np.flatnonzero(counts)
    x = np.repeat(filled[:, None], samples, axis=1) * width + (np.arange(samples) + 0.5) * (width / samples)
    weights = np.repeat(counts[filled, None] / samples, samples, axis=1)
    steps = np.round(x / (threshold / 127.0)).clip(-128, 127)
    return float(np.average((x - steps * (threshold / 127.0)) ** 2, weights=weights))


@given(counts=any_counts, share=st.floats(0.01, 3.0), exponent=st.integers(-60, 60))
def test_the_squared_error_of_a_threshold_is_that_of_16_values_in_each_bin(
    counts: np.ndarray, share: float, exponent: int
) -> None:
    """For any threshold: between edges, and beyond the range."""
    h = histogram(counts, 2.0**exponent)
    expected = error_on_values(counts, h.width, share * h.range, 16)
    assert squared_error(h, share * h.range) == pytest.approx(expected, rel=1e-9)


@given(counts=smooth(), share=st.floats(0.2, 1.5), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_the_squared_error_is_about_that_of_values_anywhere_in_their_bins(
    counts: np.ndarray, share: float, seed: int
) -> None:
    """Its root differs by the width of a bin at most: |x − round(x)| changes no faster than x."""
    h = histogram(counts, 8.0)
    bins = np.repeat(np.arange(BINS), np.minimum(counts, 2000))
    h = histogram(np.bincount(bins, minlength=BINS), 8.0)
    x = (bins + np.random.default_rng(seed).random(bins.size)) * h.width
    step = share * 8.0 / 127
    true = np.sqrt(np.mean((x - np.clip(np.round(x / step), -128, 127) * step) ** 2))
    assert abs(np.sqrt(squared_error(h, share * 8.0)) - true) <= h.width * (1 + 1e-9)


@given(counts=any_counts, edge=st.integers(1, BINS))
def test_both_squared_errors_agree_at_edges(counts: np.ndarray, edge: int) -> None:
    h = histogram(counts)
    whole = squared_errors(counts, np.array([edge]))[0] / counts.sum()
    step = edge / 127
    assert squared_error(h, float(edge)) == pytest.approx(whole, rel=1e-9, abs=max(1.0, step) / 500)


@given(counts=any_counts, exponent=st.integers(-60, 60))
@settings(max_examples=30)
def test_the_best_rule_is_never_worse_than_another(counts: np.ndarray, exponent: int) -> None:
    """By the error on values, which is computed here."""
    h = histogram(counts, 2.0**exponent)
    rule, threshold = Best().choice(h)
    assert threshold == Best().threshold(h) == rule.threshold(h)
    least = error_on_values(counts, h.width, threshold, 16)
    for other in Best().rules:
        assert least <= error_on_values(counts, h.width, other.threshold(h), 16) * (1 + 1e-9), other.name


@given(counts=any_counts)
def test_the_best_of_one_rule_is_that_rule_and_of_equals_the_first(counts: np.ndarray) -> None:
    h = histogram(counts)
    assert Best((MinMax(),)).choice(h) == (MinMax(), h.amax)
    twins = (MinMax(), Twin())
    assert Best(twins).choice(h)[0] is twins[0]
    assert Best(twins[::-1]).choice(h)[0] is twins[1]


class Twin(MinMax):
    """The same thresholds by another rule."""


@given(counts=any_counts, exponent=st.integers(-100, 100))
@settings(max_examples=30)
def test_the_best_threshold_scales_with_the_values(counts: np.ndarray, exponent: int) -> None:
    threshold = Best().threshold(histogram(counts, float(BINS)))
    assert threshold == float(F32(threshold))
    assert Best().threshold(histogram(counts, BINS * 2.0**exponent)) == threshold * 2.0**exponent


def test_a_threshold_of_zero_is_the_worst_but_for_zeros() -> None:
    assert squared_error(histogram({5: 3}), 0.0) == math.inf
    assert squared_error(Histogram(histogram({0: 9}).counts, 0.0, 0.0, 0.0), 0.0) == 0.0
    assert squared_error(Histogram(np.zeros(BINS, np.int64), 0.0, 0.0, 0.0), 1.0) == 0.0
    assert Best().threshold(Histogram(histogram({0: 9}).counts, 0.0, 0.0, 0.0)) == 0.0


# ── all rules ───────────────────────────────────────────────────────────────────────────────────────────────────────

RULES = [Entropy(), MinMax(), Mse(), Percentile(), Percentile(50.0)]
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
    with pytest.raises(UsageError, match=r"unknown rule(.|\n)*mse, best, percentile:99.99, entropy, minmax"):
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
