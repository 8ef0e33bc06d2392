"""The engine to deploy, of those that a tuning by time built and timed.

The time of an engine is its milliseconds as a fraction of FP16's, the geometric mean over the batch sizes. FP16 is
chosen unless another engine is faster by more than engines differ by chance (3 %) and by more than both vary between
rounds. An engine that is slower than FP16 at one of the batch sizes, by as much, is never chosen.

    latency     the fastest inside the budget; a table only if it is faster than all pairs by more than chance
    balanced    the greatest difference between the share of the possible gain in time that an engine brings and the
                share of the budget that it uses up: half of the gain for a quarter of the budget is better than all
                of it for the whole
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quantkit.engines.round_times import RoundTimes
from quantkit.tuning.speed.candidate import EngineKind, SpeedCandidate
from quantkit.values import NamedChoice


class Objective(NamedChoice):
    """The aim of tuning inside the budget."""

    ACCURACY = "accuracy"
    """The fewest changes to the untuned INT8 network; times play no part."""
    LATENCY = "latency"
    """The fastest engine."""
    BALANCED = "balanced"
    """A fast engine that leaves a part of the budget."""


@dataclass(frozen=True, slots=True)
class RelativeTime:
    """The time of a candidate as a fraction of FP16's, round by round, over all batch sizes."""

    candidate: SpeedCandidate
    times: RoundTimes


def relative_times(candidates: Sequence[SpeedCandidate]) -> tuple[RelativeTime, ...]:
    """Return the times of the candidates that were timed at every batch size of FP16, FP16 first, then the fastest.

    Empty where FP16 was not timed.
    """
    reference = next((c for c in candidates if c.kind is EngineKind.FP16 and c.times), None)
    if reference is None:
        return ()
    found = [
        RelativeTime(candidate, relative_rounds(candidate, reference))
        for candidate in candidates
        if candidate.times.keys() == reference.times.keys()
    ]
    return tuple(sorted(found, key=lambda item: (item.candidate is not reference, item.times.median)))


def relative_rounds(candidate: SpeedCandidate, reference: SpeedCandidate) -> RoundTimes:
    """Return the rounds of a candidate as fractions of FP16's time: geometric means over the batch sizes.

    Rounds of two batch sizes follow one another, so that what slows down one says nothing of the other: the median is
    that of the medians, and the rounds lie around it.
    """
    by_batch = [np.asarray(candidate.times[batch].rounds) / times.median for batch, times in reference.times.items()]
    count = min(len(rounds) for rounds in by_batch)
    rounds = np.exp(np.mean([np.log(each[:count]) for each in by_batch], axis=0))
    median = math.exp(math.fsum(math.log(np.median(each)) for each in by_batch) / len(by_batch))
    return RoundTimes(tuple(float(value) for value in rounds * (median / np.median(rounds))))


def is_inside(candidate: SpeedCandidate, budget: float) -> bool:
    """Return whether a candidate meets the budget with a standard error to spare; one that was not measured does."""
    return candidate.figure is None or candidate.figure.cautious_drop <= budget


def is_slower_somewhere(candidate: SpeedCandidate, reference: SpeedCandidate) -> bool:
    """Return whether FP16 is faster at one of the batch sizes, by more than chance."""
    return any(reference.times[batch].is_faster_than(times) for batch, times in candidate.times.items())


def gaining_candidates(candidates: Sequence[SpeedCandidate]) -> tuple[RelativeTime, ...]:
    """Return the candidates that beat FP16, the fastest first, whatever they lose."""
    found = relative_times(candidates)
    if not found:
        return ()
    reference, *others = found
    return tuple(
        item
        for item in others
        if item.times.is_faster_than(reference.times) and not is_slower_somewhere(item.candidate, reference.candidate)
    )


def choose_candidate(
    candidates: Sequence[SpeedCandidate], objective: Objective = Objective.LATENCY, budget: float = math.inf
) -> SpeedCandidate | None:
    """Return the candidate to deploy, FP16 unless another beats it inside the budget; None if FP16 was not timed."""
    found = relative_times(candidates)
    if not found:
        return None
    reference = found[0]
    gaining = [item for item in gaining_candidates(candidates) if is_inside(item.candidate, budget)]
    if not gaining:
        return reference.candidate
    if objective is not Objective.BALANCED:
        return prefer_pairs(gaining).candidate
    return max((reference, *gaining), key=lambda item: balance(item, gaining[0], budget)).candidate


def prefer_pairs(found: Sequence[RelativeTime]) -> RelativeTime:
    """Return the fastest, or the fastest Q/DQ engine if an engine by a table is faster only by chance.

    Pairs say what is INT8, and every TensorRT reads them.
    """
    fastest = found[0]
    pairs = next((item for item in found if item.candidate.kind is EngineKind.QDQ), fastest)
    return fastest if fastest.times.is_faster_than(pairs.times) else pairs


def balance(item: RelativeTime, fastest: RelativeTime, budget: float) -> float:
    """Return the share of the possible gain in time that a candidate brings, less the share of the budget it uses."""
    gain = (1.0 - item.times.median) / (1.0 - fastest.times.median)
    lost = max(0.0, item.candidate.figure.drop) if item.candidate.figure else 0.0
    if not lost:
        return gain
    return gain - lost / budget if budget else -math.inf


def ties(candidates: Sequence[SpeedCandidate], chosen: SpeedCandidate) -> tuple[str, ...]:
    """Return the names of the candidates whose times do not differ from the chosen one's by more than chance."""
    found = {item.candidate.name: item.times for item in relative_times(candidates)}
    own = found.get(chosen.name)
    return tuple(
        name
        for name, times in found.items()
        if own is not None and name != chosen.name and not times.is_faster_than(own) and not own.is_faster_than(times)
    )


def fastest_by_batch(candidates: Sequence[SpeedCandidate]) -> dict[int, str]:
    """Return batch size → the fastest candidate for it alone; FP16 if nothing beats it there."""
    reference = next((c for c in candidates if c.kind is EngineKind.FP16 and c.times), None)
    if reference is None:
        return {}
    found = {}
    for batch, times in reference.times.items():
        others = [c for c in candidates if batch in c.times and c.times[batch].is_faster_than(times)]
        found[batch] = min(others, key=lambda c: c.times[batch].median, default=reference).name
    return found
