"""One shard of an evaluation: the totals over its batches, as a file holds them.

Nothing that affects the figures is decided by a shard: what the outputs hold, which metric fits and where the labels
are follows from the first batch of the whole data, which every shard runs through the reference.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from quantkit._version import __version__
from quantkit.artifact import Digest, canonical_json, sha256_of, text_bytes
from quantkit.backends.session import backend_label, default_backend
from quantkit.data import Feed, Portion
from quantkit.data.peeking import DataWatcher
from quantkit.evaluation.accumulate import Outputs, Scoring
from quantkit.evaluation.evaluation_pass import EvaluationPass, open_evaluation_data, run_pass, unfilled_batch
from quantkit.evaluation.options import EvaluationRequest, resolve_metrics
from quantkit.evaluation.request import rename_subjects
from quantkit.evaluation.result import Speed
from quantkit.evaluation.runners import indivisible_parts, indivisible_size, open_model_runner, open_runner_pool
from quantkit.evaluation.shards.format import EVALUATION
from quantkit.evaluation.subjects import Subject
from quantkit.graph import refuse_changed_weights
from quantkit.metrics.label_digest import LabelDigest
from quantkit.paths import is_file
from quantkit.preprocess import Preprocess
from quantkit.progress import Progress
from quantkit.regular_file import regular_file_digest
from quantkit.sharding import RunIdentity, Shard, record_shard
from quantkit.sharding.data_parts import data_parts, digest_list, digest_stamps, refuse_moved_batches, shard_batches
from quantkit.totals import StoredTotals


class WholeBatchWatcher(DataWatcher):
    """A watcher of the batches of a shard: none may be others than those of one run. DataError."""

    def __init__(self, spec: Preprocess | None, feed: Feed) -> None:
        super().__init__(spec)
        self._feed = feed

    def see(self, portion: Portion) -> None:
        """Take a batch."""
        refuse_moved_batches(self._feed, "sums of output errors depend on them")
        super().see(portion)


class ShardEvaluator:
    """An evaluator of any shards of one evaluation; models and data are opened once for all of them.

    held: keeps the threads of the models until its end. cores: to use; None: all. run: what all shards have in common.
    Raises what `evaluate` raises; UsageError for a metric that cannot be divided, DataError for data that cannot.
    """

    def __init__(
        self, subjects: Sequence[Subject], request: EvaluationRequest, held: ExitStack, cores: int | None = None
    ) -> None:
        self.subjects, self.request = rename_subjects(subjects, request.options.names), request
        self.spec, peeked = open_evaluation_data(self.subjects, request, held)
        peeked.close()
        self.feed: Feed = peeked
        assert peeked.first is not None
        self._pool = open_runner_pool(held, peeked.first.batch, request.options.provider, cores)
        self._runners = [open_model_runner(subject, self._pool, held) for subject in self.subjects]
        part = next(indivisible_parts(peeked.first, self.subjects), None)
        if part is None:
            raise unfilled_batch(indivisible_size(self.subjects) or 1)
        self._first: tuple[Outputs, Portion] = (self._runners[0].submit(part.batch, part.samples)(), part)
        scoring = self.start()
        scoring.state()  # an error now, rather than after the pass
        self._labels = scoring.labels
        self.run = self._identify()

    def start(self) -> Scoring:
        """Return totals of nothing yet."""
        return resolve_metrics(self.subjects, *self._first, self.feed, self.request, self.spec.applied)

    def collect(self, shard: Shard, progress: Progress) -> bytes:
        """Run the batches of one shard, and return the content of its file. Raises what `evaluate` raises."""
        started, batches = time.monotonic(), shard_batches(self.feed, shard)
        part = self.feed.part(batches)
        files = digest_stamps(part)
        scoring = self.start()
        watcher = WholeBatchWatcher(self.spec.applied, part)
        pass_ = EvaluationPass(part, self._pool, self._runners, watcher, progress)
        run_pass(pass_, self.subjects, lambda _, __: scoring, scoring)
        refuse_moved_batches(part, "sums of output errors depend on them")
        for subject in self.subjects:
            if subject.model is not None:
                refuse_changed_weights(subject.model)
        identity = part.identity()
        assert identity is not None, "bug in quantkit: a stream was divided into shards"
        record = record_shard(shard, batches, self.run, files=files, skipped=part.unreadable)
        tree = {
            "scoring": scoring.state(),
            "data": {"content": identity.content, "samples": identity.samples},
            "speeds": [speed_values(runner.speed(self.feed.batch_size or 1)) for runner in self._runners],
            "seconds": time.monotonic() - started,
        }
        return EVALUATION.content_of(record, tree)

    def reason_to_renew(self, stored: StoredTotals) -> str:
        """Return that the samples of a shard had other labels when it was made; "" if they had not. DataError.

        Labels in the batches themselves are part of the content of the samples.
        """
        labels = self._labels
        if labels is None or self.feed.kind == "batches":
            return ""
        known, digest = stored.tree["scoring"], LabelDigest()
        digest.add(labels.of(Portion({}, tuple(known["names"]), 0)))
        return "made with other labels" if digest.state() != known["digest"] else ""

    def _identify(self) -> RunIdentity:
        request, options = self.request, self.request.options
        models = [[s.kind.value, s.sha256 or (s.model.sha256 if s.model else "")] for s in self.subjects]
        return RunIdentity({
            "models": Digest(sha256_of(text_bytes(canonical_json(models)))),
            "number of models": len(models),
            "data list": Digest(digest_list(self.feed)),
            **data_parts(self.feed, options.data),
            "preprocessing": self.spec.document,
            "labels": Digest(file_digest(request.labels)),
            "classes": Digest(file_digest(options.classes)),
            "metrics": list(request.metrics) or "the default",
            "without labels": options.without_labels,
            "backend": backend_label(default_backend(), options.provider),
            "quantkit": __version__,
        })  # fmt: skip


def file_digest(path: str | Path | None) -> str:
    """Return the sha256 of a file; empty for a folder, and without one."""
    return regular_file_digest(path) if path is not None and is_file(path) else ""


def speed_values(speed: Speed | None) -> list[Any]:
    """Return a speed as plain values; none without one."""
    if speed is None:
        return []
    return [speed.samples_per_second, speed.latency_ms, speed.batch, speed.where, speed.device.value]
