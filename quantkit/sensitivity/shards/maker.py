"""Shards of a sensitivity analysis are made here, and added up: the figures are those of one run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from quantkit._version import __version__
from quantkit.artifact import Digest, canonical_json, sha256_of, text_bytes
from quantkit.backends.session import backend_label, default_backend
from quantkit.data import DataOptions, Feed, open_data
from quantkit.data.feed import MODULUS
from quantkit.data.opening import whole_batches
from quantkit.data.preprocess_choice import AnyPreprocess, choose_spec
from quantkit.errors import Interrupted
from quantkit.graph import Model, refuse_changed_weights
from quantkit.graph.identity import model_identity
from quantkit.progress import Phases, Progress
from quantkit.sensitivity.options import LayersOptions
from quantkit.sensitivity.sensitivity_pass import VARIANTS, SensitivityPass, SensitivityTotals
from quantkit.sensitivity.subject import SensitivitySubject
from quantkit.sharding import RunIdentity, Shard, record_shard
from quantkit.sharding.data_parts import data_parts, digest_list, digest_stamps, refuse_moved_batches, shard_batches
from quantkit.totals import StoredTotals, TotalsFormat, damaged_totals, stored_shards

SENSITIVITY = TotalsFormat(
    ".layers.safetensors", "quantkit.layers", "a shard of layers", remedy="make it again: quantkit layers --shard"
)
WHY = "sums of errors depend on them"
"""Why shards cannot leave out a sample."""


@dataclass(frozen=True, slots=True)
class MeasuredTotals:
    """Totals over all samples, with the identity of these by content.

    skipped: samples that were left out, with the reason.
    """

    totals: SensitivityTotals
    content: str
    skipped: tuple[str, ...] = ()


class SensitivityShards:
    """A maker of any shards of one analysis; network and data are opened once. Errors are those of `layers`."""

    def __init__(
        self, subject: SensitivitySubject, data: Any, preprocess: AnyPreprocess, options: LayersOptions
    ) -> None:
        source, self.options = subject.reference, options
        spec = choose_spec(preprocess, source, data)
        self.feed: Feed
        self.feed, applied = open_data(data, source.inputs, spec.spec, limit_to_whole_batches(options.data, source))
        self.spec = spec.with_applied(applied)
        self.pass_ = SensitivityPass(subject, self.feed, options.data.threads)

    @cached_property
    def run(self) -> RunIdentity:
        """The identity of the run: all that its shards have in common."""
        subject = self.pass_.subject
        quantized = subject.quantized
        record = [quantized.sha256 or model_identity(quantized.proto, quantized.folder, str(quantized.path))]
        return RunIdentity({
            "model": Digest(subject.reference.sha256),
            "quantization": Digest(sha256_of(text_bytes(canonical_json(record)))),
            "data list": Digest(digest_list(self.feed)),
            **data_parts(self.feed, self.options.data),
            "preprocessing": self.spec.document,
            "backend": backend_label(default_backend(), "cpu"),
            "quantkit": __version__,
        })  # fmt: skip

    def measure(self, phases: Phases) -> MeasuredTotals:
        """Run all batches in this process."""
        totals = self.pass_.collect(self.feed, phases)
        identity = self.feed.identity()
        return MeasuredTotals(totals, identity.content if identity else "", tuple(self.feed.unreadable))

    def collect(self, shard: Shard, progress: Progress) -> bytes:
        """Run the batches of one shard, and return the content of its file."""
        batches = shard_batches(self.feed, shard)
        part = self.feed.part(batches)
        files = digest_stamps(part)
        progress.start(part.samples, 1, 0)
        try:
            totals = self.pass_.collect(part, SampleCounter(progress, len(self.pass_.candidates)).phases)
        finally:
            progress.close()
        refuse_moved_batches(part, WHY)
        refuse_changed_weights(self.pass_.subject.reference)
        identity = part.identity()
        assert identity is not None, "bug in quantkit: a stream was divided into shards"
        data = {"content": identity.content, "samples": identity.samples}
        return SENSITIVITY.content_of(
            record_shard(shard, batches, self.run, files=files), {"data": data, "totals": totals.state()}
        )

    def reason_to_renew(self, stored: StoredTotals) -> str:
        """Return "": nothing counts but what all shards have in common, and the samples."""
        del stored
        return ""


class SampleCounter:
    """Counts the samples of a pass as a progress has them: those that all variants have seen, on average."""

    def __init__(self, progress: Progress, variants: int) -> None:
        self._progress, self._variants = progress, variants
        self._is_counting, self._done = False, 0
        self.phases = Phases(self._begin, self._count)

    def _begin(self, phase: str) -> None:
        self._is_counting = phase.endswith(VARIANTS)

    def _count(self, done: int, total: int | None) -> None:
        del total
        if self._progress.stopped():
            raise Interrupted("the measurement was stopped", remedy="start it again; nothing was written")
        samples = done // self._variants if self._is_counting else 0
        if samples > self._done:
            self._progress.advance(samples - self._done)
            self._done = samples


def add_up(maker: SensitivityShards, parts: Iterable[tuple[str, bytes]]) -> MeasuredTotals:
    """Return the totals of all samples from the shards; one is held at a time.

    parts: name and content of each file. ShardError where one is missing, there twice, damaged, or of another run.
    """
    totals, content = maker.pass_.start(), 0
    for name, stored in stored_shards(maker, SENSITIVITY, parts):
        with damaged_totals(SENSITIVITY, name):
            totals.extend(stored.tree["totals"])
            content = (content + int(stored.content, 16)) % MODULUS
    return MeasuredTotals(totals, format(content, "064x"))


def limit_to_whole_batches(options: DataOptions, source: Model) -> DataOptions:
    """Return the options with their limit rounded to whole batches if the network has a fixed batch size."""
    limit = options.limit
    return options if limit is None else replace(options, limit=whole_batches(limit, source.inputs))
