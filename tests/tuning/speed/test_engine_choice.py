"""The engine to deploy, by times and losses that are given."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantkit.engines.round_times import RoundTimes
from quantkit.tuning.figure import Figure
from quantkit.tuning.speed.candidate import EngineKind, SpeedCandidate
from quantkit.tuning.speed.engine_choice import (
    Objective,
    choose_candidate,
    fastest_by_batch,
    gaining_candidates,
    relative_times,
    ties,
)

ROUNDS = st.lists(st.floats(0.05, 20.0), min_size=3, max_size=9)


def loss(drop: float, error: float = 0.0) -> Figure:
    return Figure(0.5, drop, drop - 1.0, drop + 1.0, error)


def engine(
    name: str, *times: float, kind: EngineKind = EngineKind.QDQ, drop: float | None = None, error: float = 0.0
) -> SpeedCandidate:
    """An engine whose rounds are all alike, timed at batch 1, 2, …"""
    rounds = {batch: RoundTimes((time,) * 5) for batch, time in enumerate(times, 1)}
    return SpeedCandidate(name, kind, "", times=rounds, figure=None if drop is None else loss(drop, error))


def fp16(*times: float) -> SpeedCandidate:
    return engine("fp16", *times, kind=EngineKind.FP16, drop=0.0)


@st.composite
def timed(draw: st.DrawFn) -> list[SpeedCandidate]:
    """FP16 and up to five others, some of them not timed, with losses that may be unknown."""
    batches = draw(st.sampled_from([(1,), (1, 32)]))
    kinds = [EngineKind.FP16, *draw(st.lists(st.sampled_from([EngineKind.QDQ, EngineKind.TABLE]), max_size=5))]
    found = []
    for number, kind in enumerate(kinds):
        is_timed = number == 0 or draw(st.booleans())
        times = {batch: RoundTimes(tuple(draw(ROUNDS))) for batch in batches} if is_timed else {}
        figure = draw(st.none() | st.floats(-1, 3).map(loss))
        found.append(SpeedCandidate(f"c{number}", kind, "", times=times, figure=figure))
    return found


@given(timed(), st.sampled_from([Objective.LATENCY, Objective.BALANCED]), st.floats(0, 2))
def test_nothing_slower_than_fp16_and_nothing_over_the_budget(
    found: list[SpeedCandidate], objective: Objective, budget: float
) -> None:
    chosen = choose_candidate(found, objective, budget)
    reference = found[0]
    assert chosen is not None
    if chosen is not reference:
        assert chosen.figure is None or chosen.figure.cautious_drop <= budget
        assert not any(reference.times[b].is_faster_than(times) for b, times in chosen.times.items())
        ratios = [reference.times[b].median / times.median for b, times in chosen.times.items()]
        assert math.prod(ratios) > 1.0
    assert choose_candidate(found[::-1], objective, budget) is not None
    assert {c.name for c in found if c.times} >= {chosen.name, *ties(found, chosen)}


@given(timed())
def test_the_fastest_is_chosen_unless_it_is_a_table_by_chance(found: list[SpeedCandidate]) -> None:
    gaining = gaining_candidates(found)
    chosen = choose_candidate(found)
    if not gaining:
        assert chosen is found[0]
    elif gaining[0].candidate.kind is EngineKind.QDQ:
        assert chosen is gaining[0].candidate
    else:
        assert chosen is not None
        own = {item.candidate.name: item.times for item in relative_times(found)}
        assert not gaining[0].times.is_faster_than(own[chosen.name]) or chosen is gaining[0].candidate


@pytest.mark.parametrize("objective", [Objective.LATENCY, Objective.BALANCED])
def test_slow_rounds_of_fp16_at_different_batch_sizes_are_no_gain(objective: Objective) -> None:
    slowed = {1: RoundTimes((1.0, 1.0, 2.0)), 32: RoundTimes((1.0, 2.0, 1.0))}
    reference = SpeedCandidate("fp16", EngineKind.FP16, "", times=slowed)
    steady = {batch: RoundTimes((1.0, 1.0, 1.0)) for batch in slowed}
    found = [reference, SpeedCandidate("a", EngineKind.QDQ, "", times=steady)]
    assert relative_times(found)[0].times.median == pytest.approx(1.0)
    assert choose_candidate(found, objective, 0.0) is reference


def test_fp16_that_loses_something_is_compared_where_nothing_may_be_lost() -> None:
    found = [engine("fp16", 1.0, kind=EngineKind.FP16, drop=0.1), engine("a", 0.5, drop=0.0)]
    chosen = choose_candidate(found, Objective.BALANCED, 0.0)
    assert chosen is not None
    assert chosen.name == "a"


def test_a_gain_within_the_noise_is_none() -> None:
    assert choose_candidate([fp16(1.0), engine("a", 0.98)]).name == "fp16"  # type: ignore[union-attr]
    assert choose_candidate([fp16(1.0), engine("a", 0.96)]).name == "a"  # type: ignore[union-attr]


def test_rounds_that_vary_ask_for_more() -> None:
    steady, wild = RoundTimes((0.9,) * 8), RoundTimes((0.7, 0.8, 0.85, 0.9, 0.9, 0.95, 1.0, 1.1))
    reference = RoundTimes((1.0,) * 8)
    assert steady.is_faster_than(reference)
    assert not wild.is_faster_than(reference)
    assert wild.spread == pytest.approx((0.9625 - 0.8375) / 0.9)
    assert steady.text() == "0.900 ms ± 0.0 %"


def test_an_engine_that_is_slower_at_one_batch_size_is_not_chosen() -> None:
    slower = engine("a", 1.1, 0.4)
    assert choose_candidate([fp16(1.0, 1.0), slower]).name == "fp16"  # type: ignore[union-attr]
    assert fastest_by_batch([fp16(1.0, 1.0), slower]) == {1: "fp16", 2: "a"}


def test_batch_sizes_count_alike() -> None:
    """Half the time at one batch size is worth as much as at another, however long a batch takes."""
    found = [fp16(1.0, 100.0), engine("a", 0.5, 80.0), engine("b", 0.8, 51.0)]
    assert choose_candidate(found).name == "a"  # type: ignore[union-attr]
    (_, first, second) = relative_times(found)
    assert first.times.median == pytest.approx(math.sqrt(0.5 * 0.8))
    assert second.times.median == pytest.approx(math.sqrt(0.8 * 0.51))


def test_a_table_has_to_be_faster_than_pairs_by_more_than_chance() -> None:
    table = engine("table", 0.5, kind=EngineKind.TABLE)
    assert choose_candidate([fp16(1.0), engine("a", 0.51), table]).name == "a"  # type: ignore[union-attr]
    assert choose_candidate([fp16(1.0), engine("a", 0.53), table]).name == "table"  # type: ignore[union-attr]


@pytest.mark.parametrize(("objective", "wanted"), [(Objective.LATENCY, "fast"), (Objective.BALANCED, "middle")])
def test_balanced_spares_the_budget(objective: Objective, wanted: str) -> None:
    """Three quarters of the gain for a tenth of the budget, against all of it for nine tenths."""
    found = [fp16(1.0), engine("fast", 0.6, drop=0.9), engine("middle", 0.7, drop=0.1)]
    assert choose_candidate(found, objective, 1.0).name == wanted  # type: ignore[union-attr]


def test_balanced_may_choose_fp16() -> None:
    found = [fp16(1.0), engine("fast", 0.9, drop=1.0)]
    assert choose_candidate(found, Objective.BALANCED, 1.0).name == "fp16"  # type: ignore[union-attr]
    assert choose_candidate(found, Objective.LATENCY, 1.0).name == "fast"  # type: ignore[union-attr]


def test_a_standard_error_counts() -> None:
    found = [fp16(1.0), engine("fast", 0.5, drop=0.8, error=0.3), engine("slow", 0.8, drop=0.5, error=0.1)]
    assert choose_candidate(found, Objective.LATENCY, 1.0).name == "slow"  # type: ignore[union-attr]


def test_without_fp16_nothing_is_chosen() -> None:
    assert choose_candidate([engine("a", 1.0)]) is None
    assert fastest_by_batch([engine("a", 1.0)]) == {}
