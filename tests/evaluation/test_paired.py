"""Paired statistics against statsmodels and scipy, and the coverage that they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar

from quantkit.errors import DataError
from quantkit.evaluation import bootstrap
from quantkit.evaluation.paired import bonett_price_interval, mcnemar, paired_difference
from quantkit.evaluation.result import IntervalMethod
from quantkit.metrics.metric import MetricResult

counts = st.integers(0, 400)


def scored(scores: NDArray[np.float64]) -> MetricResult:
    return MetricResult(float(scores.mean()), scores, None, scores.size)


def binary_results(both: int, lost: int, gained: int, neither: int) -> tuple[MetricResult, MetricResult]:
    reference = np.repeat([1.0, 1.0, 0.0, 0.0], [both, lost, gained, neither])
    candidate = np.repeat([1.0, 0.0, 1.0, 0.0], [both, lost, gained, neither])
    return scored(reference), scored(candidate)


# McNemar's test ---------------------------------------------------------------------------------------------------


@given(counts, counts)
def test_the_mid_p_is_the_exact_p_less_half_of_the_observed_case(lost: int, gained: int) -> None:
    exact = reference_mcnemar([[0, lost], [gained, 0]], exact=True).pvalue
    seen = stats.binom.pmf(min(lost, gained), lost + gained, 0.5)
    expected = 1.0 if lost == gained else exact - seen
    assert mcnemar(lost, gained) == pytest.approx(expected, rel=1e-9, abs=1e-300)
    assert mcnemar(lost, gained) == mcnemar(gained, lost)


def test_thousands_of_changes_do_not_underflow() -> None:
    assert mcnemar(50_000, 49_000) == pytest.approx(stats.chi2.sf(1000**2 / 99_000, 1), rel=0.01)
    assert mcnemar(40_000, 0) == 0.0


@pytest.mark.parametrize("changes", [5, 20, 100])
def test_the_mid_p_rejects_a_true_null_hypothesis_in_at_most_one_of_twenty_cases(changes: int) -> None:
    """Exact: summed over every number of changes (Poisson, as of 10,000 samples) and every split of them."""
    wrong = 0.0
    for total in range(int(stats.poisson.isf(1e-9, changes)) + 1):
        lost = np.arange(total + 1)
        rejected = np.array([mcnemar(int(n), total - int(n)) < 0.05 for n in lost])
        wrong += stats.poisson.pmf(total, changes) * stats.binom.pmf(lost, total, 0.5)[rejected].sum()
    assert wrong < 0.05
    assert wrong > {5: 0.02, 20: 0.04, 100: 0.045}[changes]  # the exact test: 0.009, 0.029, 0.040


# The interval of a difference of proportions ----------------------------------------------------------------------


def coverage(samples: int, changes: float, losses: float) -> tuple[float, float, float]:
    """Exact coverage of the interval, and how often it lies above and below the truth, over every b and c."""
    most = int(stats.binom.isf(1e-7, samples, min(1.0, changes / samples))) + 1
    down, up = changes * losses / samples, changes * (1 - losses) / samples
    within, above, below = 0.0, 0.0, 0.0
    gained = np.arange(most + 1)
    for lost in range(most + 1):
        chance = stats.binom.pmf(lost, samples, down) * stats.binom.pmf(gained, samples - lost, up / (1 - down))
        ends = np.array([bonett_price_interval(lost, int(c), samples) for c in gained if lost + c <= samples])
        chance = chance[: len(ends)]
        over, under = ends[:, 0] > down - up, ends[:, 1] < down - up
        above += chance[over].sum()
        below += chance[under].sum()
        within += chance[~over & ~under].sum()
    return within, above, below


@pytest.mark.parametrize("losses", [0.5, 0.75, 1.0])
@pytest.mark.parametrize(("samples", "changes"), [(10_000, 5), (10_000, 20), (10_000, 60), (200, 20)])
def test_the_interval_covers_what_it_says(samples: int, changes: int, losses: float) -> None:
    within, above, below = coverage(samples, changes, losses)
    assert 0.94 <= within <= (0.992 if changes < 10 else 0.97)
    assert above <= 0.025
    assert below <= 0.051


def test_simulated_evaluations_are_covered() -> None:
    """10,000 samples at 91 % with about 60 changes, 0.3 points lost; 5,000 evaluations from end to end."""
    random = np.random.default_rng(5)
    cells = random.multinomial(10_000, [0.91, 0.0045, 0.0015, 0.084], size=5_000)
    found = [paired_difference(*binary_results(*map(int, cell)), share=True, higher_is_better=True) for cell in cells]
    covered = np.mean([d.low <= 0.3 <= d.high for d in found])
    assert 0.94 <= covered <= 0.965
    detected = np.mean([d.p < 0.05 for d in found])
    power = stats.norm.sf(1.96 - 0.003 * 10_000 / math.sqrt(60))
    assert detected == pytest.approx(power, abs=0.05)


@given(counts, counts, st.integers(0, 10_000))
def test_the_interval_holds_the_value_and_turns_with_the_order(lost: int, gained: int, same: int) -> None:
    samples = lost + gained + same
    if samples == 0:
        return
    low, high = bonett_price_interval(lost, gained, samples)
    assert -1 <= low <= (lost - gained) / samples <= high <= 1
    assert bonett_price_interval(gained, lost, samples) == (pytest.approx(-high), pytest.approx(-low))
    assert low < high


def test_bonett_price_is_wald_with_a_sample_more_in_each_cell_of_changes() -> None:
    lost, gained, samples = 30, 10, 1_000
    a, b = (lost + 1) / (samples + 2), (gained + 1) / (samples + 2)
    paired = np.repeat([1.0, -1.0, 0.0], [lost + 1, gained + 1, samples - lost - gained])
    error = stats.sem(paired, ddof=0)
    assert bonett_price_interval(lost, gained, samples) == pytest.approx(
        (a - b - 1.959964 * error, a - b + 1.959964 * error)
    )


# The bootstrap ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_bootstrap_of_means_is_scipys(seed: int) -> None:
    losses = np.random.default_rng(seed).lognormal(0.0, 1.2, 25)
    found = bootstrap.bootstrap_mean(losses)
    draws = {"n_resamples": 19_999, "rng": np.random.default_rng(3), "vectorized": True}
    expected = stats.bootstrap((losses,), np.mean, method="BCa", **draws).confidence_interval
    plain = stats.bootstrap((losses,), np.mean, method="percentile", **draws).confidence_interval
    wide = expected.high - expected.low
    assert found.low == pytest.approx(expected.low, abs=0.04 * wide)
    assert found.high == pytest.approx(expected.high, abs=0.04 * wide)
    assert plain.high < expected.high - 0.06 * wide  # so skewed that the two can be told apart


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_p_is_where_the_interval_touches_zero(seed: int) -> None:
    losses = np.random.default_rng(seed).lognormal(0.0, 1.0, 60)
    found = bootstrap.bootstrap_mean(losses)
    for end in (found.low, found.high):
        assert bootstrap.bootstrap_mean(losses - end).p == pytest.approx(0.05, abs=0.003)
    assert (
        bootstrap.bootstrap_mean(losses - found.low + 0.05).p
        < 0.05
        < bootstrap.bootstrap_mean(losses - found.low - 0.05).p
    )


def test_p_is_that_of_the_t_test_where_scores_are_normal() -> None:
    random = np.random.default_rng(8)
    for shift in np.linspace(-0.4, 0.4, 9):
        losses = random.normal(shift, 1.0, 100)
        assert bootstrap.bootstrap_mean(losses).p == pytest.approx(stats.ttest_1samp(losses, 0).pvalue, abs=0.03)


def test_the_bootstrap_covers_skewed_scores() -> None:
    random = np.random.default_rng(11)
    covered = []
    for _ in range(250):
        losses = random.exponential(1.0, 120)
        covered.append((found := bootstrap.bootstrap_mean(losses)).low <= 1.0 <= found.high)
    assert 0.92 <= np.mean(covered) <= 0.975


def test_drawing_in_small_chunks_bounds_memory_and_changes_nothing_of_note(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = np.random.default_rng(2).normal(0.1, 1.0, 500)
    whole = bootstrap.bootstrap_mean(losses)
    monkeypatch.setattr(bootstrap, "CHUNK", 1)
    one_by_one = bootstrap.bootstrap_mean(losses)
    assert one_by_one.replicates == whole.replicates == 5_000
    assert one_by_one.low == pytest.approx(whole.low, abs=0.02)


# A figure of the whole set


def test_draws_without_any_figure_give_no_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "SET_REPLICATES", 3)
    silent = MetricResult(0.5, None, lambda _: math.nan, 10)
    found = paired_difference(silent, silent, share=True, higher_is_better=True)
    assert math.isnan(found.low)
    assert found.method is IntervalMethod.NO_RESAMPLES


def ratio(numerators: NDArray[np.float64], denominators: NDArray[np.float64]) -> MetricResult:
    """Σ a / Σ b: no mean over samples, as mIoU and mAP are none."""

    def figure(chosen: NDArray[np.intp]) -> float:
        return float(numerators[chosen].sum() / denominators[chosen].sum())

    return MetricResult(figure(np.arange(numerators.size)), None, figure, numerators.size)


def test_a_figure_of_the_whole_set_covers_and_draws_the_same_samples_for_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "SET_REPLICATES", 300)
    random = np.random.default_rng(21)
    covered, widths = [], []
    for _ in range(200):
        union = random.gamma(2.0, 1.0, 150)
        first = union * random.beta(8, 2, 150)
        second = first * 0.9
        found = paired_difference(ratio(first, union), ratio(second, union), share=True, higher_is_better=True)
        covered.append(found.low <= 8.0 <= found.high)
        widths.append(found.high - found.low)
    assert 0.90 <= np.mean(covered) <= 0.985
    assert np.mean(widths) < 1.0  # drawn apart, it would be 5 points wide
    assert found.method is IntervalMethod.BOOTSTRAP_SET


# The difference ---------------------------------------------------------------------------------------------------


def test_a_loss_is_positive_whichever_way_is_better() -> None:
    good, bad = binary_results(80, 10, 3, 7)
    loss = paired_difference(good, bad, share=True, higher_is_better=True)
    assert (loss.value, loss.worse, loss.better) == (pytest.approx(7.0), 10, 3)
    assert loss.low < 7.0 < loss.high
    turned = paired_difference(bad, good, share=True, higher_is_better=True)
    assert (turned.value, turned.worse, turned.better, turned.p) == (pytest.approx(-7.0), 3, 10, loss.p)
    error = paired_difference(bad, good, share=True, higher_is_better=False)
    assert (error.value, error.low, error.high) == (
        pytest.approx(loss.value), pytest.approx(loss.low), pytest.approx(loss.high),
    )  # fmt: skip
    unit = paired_difference(good, bad, share=False, higher_is_better=True)
    assert (unit.value, unit.high) == (pytest.approx(0.07), pytest.approx(loss.high / 100))


def test_other_scores_are_bootstrapped_and_repeat_themselves() -> None:
    random = np.random.default_rng(0)
    first, second = scored(random.normal(3.0, 1.0, 400)), scored(random.normal(2.9, 1.0, 400))
    found = paired_difference(first, second, share=False, higher_is_better=True)
    assert found == paired_difference(first, second, share=False, higher_is_better=True)
    assert found.value == pytest.approx(first.value - second.value)
    assert found.better + found.worse == 400
    assert found.method is IntervalMethod.BOOTSTRAP_MEAN


def test_equal_predictions_have_no_difference() -> None:
    same = binary_results(90, 0, 0, 10)[0]
    found = paired_difference(same, same, share=True, higher_is_better=True)
    assert (found.value, found.p, found.better, found.worse) == (0.0, 1.0, 0, 0)
    assert found.low < 0.0 < found.high  # no change in 100 samples is not proof of none
    scores = scored(np.linspace(0.1, 0.9, 9))
    found = paired_difference(scores, scores, share=True, higher_is_better=True)
    assert (found.value, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (MetricResult(0.6, None, None, 50), MetricResult(0.5, None, None, 50)),
        (scored(np.array([0.6])), scored(np.array([0.5]))),
        (scored(np.full(50, 0.6)), scored(np.full(50, 0.5))),
    ],
)
def test_a_value_alone_has_no_interval(first: MetricResult, second: MetricResult) -> None:
    found = paired_difference(first, second, share=True, higher_is_better=True)
    assert found.value == pytest.approx(10.0)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert math.isnan(found.p)
    assert found.method in (IntervalMethod.VALUE_ONLY, IntervalMethod.EQUAL_CHANGES)


def test_scores_of_different_samples_are_refused() -> None:
    with pytest.raises(DataError, match="for 100 samples, the candidate for 50"):
        paired_difference(
            binary_results(100, 0, 0, 0)[0], binary_results(50, 0, 0, 0)[0], share=True, higher_is_better=True
        )
