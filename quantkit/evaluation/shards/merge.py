"""The evaluation that all its shards add up to: every figure is that of the evaluation that was not divided."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from quantkit.data import DataIdentity
from quantkit.data.feed import MODULUS
from quantkit.data.peeking import DataWatcher
from quantkit.data.preflight import WATCHED
from quantkit.evaluation.evaluation_pass import PassFigures, evaluation_context, note_left_out
from quantkit.evaluation.result import Device, Evaluation, Speed
from quantkit.evaluation.shards.evaluator import ShardEvaluator
from quantkit.evaluation.shards.format import EVALUATION
from quantkit.evaluation.summarize import summarize
from quantkit.totals import damaged_totals, stored_shards


def merge_evaluations(evaluator: ShardEvaluator, parts: Iterable[tuple[str, bytes]]) -> Evaluation:
    """Return the evaluation of all samples from the shards, in the order of the data; one is held at a time.

    parts: name and content of each file. ShardError where one is missing, there twice, damaged, or of other models,
    data, labels or options than the evaluator's. The duration is that of all shards together.
    """
    scoring = evaluator.start()
    seen, seconds, content = 0, 0.0, 0
    skipped: list[str] = []
    speeds: list[list[tuple[int, list[Any]]]] = [[] for _ in evaluator.subjects]
    for name, stored in stored_shards(evaluator, EVALUATION, parts):
        with damaged_totals(EVALUATION, name):
            scoring.extend(stored.tree["scoring"])
            content = (content + int(stored.content, 16)) % MODULUS
            seen, seconds = seen + stored.samples, seconds + float(stored.tree["seconds"])
            for known, found in zip(speeds, stored.tree["speeds"], strict=True):
                known.append((stored.samples, found))
        skipped += stored.shard.skipped
    note_left_out(scoring, evaluator.subjects, seen)
    figures = PassFigures(
        DataIdentity(format(content, "064x"), "", seen),
        tuple(map(joined_speed, speeds)),
        first_warnings(evaluator),
        tuple(skipped),
        seconds,
    )
    request, feed, spec = evaluator.request, evaluator.feed, evaluator.spec
    return summarize(scoring, evaluation_context(request, evaluator.subjects, feed, spec, scoring, figures))


def first_warnings(evaluator: ShardEvaluator) -> tuple[str, ...]:
    """Return the warnings about the first batches of the data, as in an evaluation that is not divided."""
    watcher, feed = DataWatcher(evaluator.spec.applied), evaluator.feed
    for portion in feed.part(range(min(WATCHED, feed.batches or 0))).portions():
        watcher.see(portion)
    watcher.look()
    return watcher.warnings


def joined_speed(found: Sequence[tuple[int, list[Any]]]) -> Speed | None:
    """Return the speed of a model over all shards, each with its samples: of one worker, on average; None without."""
    known = [(samples, *values) for samples, values in found if values and samples]
    if not known:
        return None
    rate = sum(samples for samples, *_ in known) / sum(samples / rate for samples, rate, *_ in known)
    latencies = [latency for _, _, latency, *_ in known if latency is not None]
    *_, batch, _, device = known[0]
    where = "; ".join(sorted({place for *_, place, _ in known}))
    return Speed(rate, statistics.median(latencies) if latencies else None, batch, where, Device(device))
