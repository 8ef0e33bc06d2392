"""The meter: runs candidates over blocks of batches, one per thread, or one on all threads where weights are large."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from quantkit.backends.session import SessionOpener, open_session
from quantkit.data import Feed
from quantkit.errors import DataError, ModelError
from quantkit.graph import Model
from quantkit.graph.save import weight_bytes
from quantkit.graph.weight_store import return_freed_memory
from quantkit.metrics.heads.facts import example_facts
from quantkit.metrics.heads.find import find_head
from quantkit.metrics.heads.head import Head, HeadQuestion
from quantkit.metrics.task import network_facts
from quantkit.output_noise.energies import EnergySums, NoiseTotals, OutputNoise
from quantkit.output_noise.reference_blocks import MeasuredBatch, ReferenceBlocks

if TYPE_CHECKING:
    from quantkit.values import Array

AT_ONCE = 64 << 20
"""Bytes of weights of the candidates that run at once; one that has more runs alone, on all threads."""
OUTPUT = "output "
"""Begins the keys of outputs, distinct from those of tensors in a pair."""


@dataclass(frozen=True, slots=True)
class NoiseCandidate:
    """A network to measure.

    make: creates it when it is needed. pair: two of its tensors for `OutputNoise.local`; the second has the exact
    values of the first.
    """

    make: Callable[[], Model]
    pair: tuple[str, str] | None = None


class NoiseMeter:
    """Measures candidates against `reference` on the samples of `feed`, any number of times.

    Every call of `noise` runs the reference again, with the feed from its start, unless its batches were kept (see
    `ReferenceBlocks`). threads: number of candidates that run at once. detections: measure boxes and scores in the rows
    of a detector whose head is known, instead of the rows. frugal: run one candidate at a time, over smaller blocks.
    ModelError if the reference has no float output.
    """

    def __init__(
        self,
        reference: Model,
        feed: Feed,
        threads: int | None = None,
        open_session: SessionOpener = open_session,
        *,
        detections: bool = False,
        frugal: bool = False,
    ) -> None:
        self._reference, self._feed = reference, feed
        self._threads = threads or min(8, os.cpu_count() or 1)
        self._at_once = 1 if frugal else max(1, min(self._threads, AT_ONCE // max(weight_bytes(reference.proto), 1)))
        self._open_session = open_session
        self._blocks = ReferenceBlocks(reference, feed, open_session, self._threads, frugal=frugal)
        self.outputs = self._blocks.outputs
        """The tensors that are measured: the float outputs, or what a selection before them reads."""
        self.samples = 0
        """Samples that the last figures are of."""
        self._missing: set[str] = set()
        self._detections = detections
        self._head: Head | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on outputs that are measured elsewhere, or of which NaN was left out."""
        left_out = "outputs hold NaN without quantization: {}; NaN in the same places does not count"
        return (*self._blocks.notes, *([left_out.format(", ".join(sorted(self._missing)))] if self._missing else []))

    def noise(
        self, candidates: Mapping[str, NoiseCandidate], done: Callable[[int, int | None], None] = lambda _, __: None
    ) -> dict[str, OutputNoise]:
        """Return the noise of every candidate. done: called with the samples seen by all candidates, and their total.

        DataError if the data yields no samples or the reference's outputs are not finite; ModelError if a candidate
        cannot be run.
        """
        return self.figures(candidates, self.collect(candidates, done))

    def collect(
        self,
        candidates: Mapping[str, NoiseCandidate],
        done: Callable[[int, int | None], None] = lambda _, __: None,
        feed: Feed | None = None,
    ) -> NoiseTotals:
        """Return the totals of every candidate over a feed, that of the meter unless it is given. ModelError."""
        feed, totals = feed or self._feed, NoiseTotals.of(candidates)
        seen = list[int]()
        total = None if feed.samples is None else feed.samples * len(candidates)
        pool = ThreadPoolExecutor(self._at_once, "quantkit-noise")
        try:
            for block in self._blocks.over(feed, totals, self._find_head):
                self._run_block(pool, block, candidates, totals.sums, seen, lambda: done(sum(seen), total))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        return totals

    def figures(self, candidates: Mapping[str, NoiseCandidate], totals: NoiseTotals) -> dict[str, OutputNoise]:
        """Return the noise of every candidate over all samples. DataError as `noise`."""
        self.samples = totals.samples
        self._missing |= totals.missing
        if not totals.samples:
            raise DataError("the data yields no samples", remedy="give at least one readable sample")
        if undefined := totals.missing - totals.defined:
            raise DataError(
                f"output {', '.join(map(repr, sorted(undefined)))} of {self._reference.path} is NaN for every sample",
                remedy="fix the network, or its input",
            )
        return {name: self._found(candidate, totals.sums[name]) for name, candidate in candidates.items()}

    def _found(self, candidate: NoiseCandidate, sums: EnergySums) -> OutputNoise:
        local = sums.ratio([candidate.pair[0]]) if candidate.pair else 0.0
        names = {key: key.removeprefix(OUTPUT) for key in sums.noise if key.startswith(OUTPUT)}
        each = {name: sums.ratio([key]) for key, name in names.items()}
        rows = {name: np.concatenate(sums.samples[key]) for key, name in names.items() if key in sums.samples}
        energies = {name: (found[:, 0], found[:, 1]) for name, found in rows.items()}
        return OutputNoise(sum(each.values()) / len(each), local, each, energies)

    def _run_block(
        self,
        pool: ThreadPoolExecutor,
        block: Sequence[MeasuredBatch],
        candidates: Mapping[str, NoiseCandidate],
        sums: Mapping[str, EnergySums],
        seen: list[int],
        report: Callable[[], None],
    ) -> None:
        stop: list[None] = []
        runs = (pool.submit(self._run, candidate, block, sums[n], stop, seen) for n, candidate in candidates.items())
        futures: set[Future[None]] = set(runs)
        try:
            while futures:
                ready, futures = wait(futures, timeout=0.2, return_when=FIRST_COMPLETED)
                for future in ready:
                    future.result()
                report()
        except BaseException:
            stop.append(None)  # running candidates end at their next batch
            raise

    def _run(
        self,
        candidate: NoiseCandidate,
        block: Sequence[MeasuredBatch],
        sums: EnergySums,
        stop: list[None],
        seen: list[int],
    ) -> None:
        """Run one candidate over a block. seen: gets the number of samples in every batch."""
        if stop:
            return
        model = candidate.make()
        wanted = tuple(dict.fromkeys((*self.outputs, *(candidate.pair or ()))))
        session = self._open_session(model, wanted, threads=self._threads // self._at_once)
        if missing := [name for name in wanted if name not in session.tensors]:
            raise ModelError(
                f"{model.path}: {missing[0]} is not a float output of the quantized network",
                remedy="quantize the same network as the reference",
            )
        run = session.runner()
        for batch, exact, samples in block:
            if stop:
                return
            found = run(batch)
            for name in self.outputs:
                other = require_same_shape(found[name], exact[name], name)
                for part, (ideal_part, own_part) in self._parts(name, exact[name], other).items():
                    sums.add(output_key(part), ideal_part, own_part, samples)
            if candidate.pair:
                own, ideal = candidate.pair
                sums.add(own, found[ideal], found[own])
            seen.append(samples)
        del run, session
        return_freed_memory()

    def _parts(self, name: str, exact: Array, other: Array) -> Mapping[str, tuple[Array, Array]]:
        """Return what is compared of an output: itself, or the boxes and the scores in the rows of a detector."""
        head = self._head
        if head is None or head.parts is None or name != head.outputs[0]:
            return {name: (exact, other)}
        return {f"{part} of {name}": pair for part, pair in head.parts(exact, other).items()}

    def _find_head(self, exact: Mapping[str, Array]) -> None:
        """Find the head of a detector from the outputs of a batch."""
        if self._detections and self._head is None and tuple(exact) == self._reference.outputs:
            facts = example_facts(exact, self._reference.proto.graph)
            self._head = find_head(HeadQuestion(facts, network_facts(self._reference.metadata)))


def output_key(name: str) -> str:
    """Return the key for the energies of an output, distinct from the key of the same tensor in a pair."""
    return f"{OUTPUT}{name}"


def require_same_shape(values: Array, exact: Array, name: str) -> Array:
    """Return the values. ModelError if their shape differs from the reference's."""
    if values.shape != exact.shape:
        raise ModelError(
            f"output {name!r} has shape {list(values.shape)}, but in the float network {list(exact.shape)}",
            remedy="cut the network before operators whose output shape depends on values (NonMaxSuppression)",
        )
    return values
