"""The distance of networks from a reference on the same batches: noise-to-signal ratio of the outputs, in one pass.

The data is processed in blocks that fit into memory. For each block the reference runs once and is closed, and every
candidate is opened, run over the block and closed again, one candidate per thread, or one on all threads where weights
are large. So memory holds one block and few candidates, regardless of the number of samples and candidates.

Outputs that a TopK or an NMS selects are measured before the selection, which small errors may change altogether.
The energies of a batch are added up exactly, so that totals of parts of the data add up to those of all of it.

The measure is the signal-to-quantization-noise ratio, 10·log10(Σ ref² / Σ (ref − out)²). For several outputs the ratios
are averaged, so that large values do not hide small ones.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from quantkit.backends.session import Session, SessionOpener, open_session
from quantkit.data import Feed
from quantkit.errors import DataError, ModelError
from quantkit.graph import Model
from quantkit.graph.save import weight_bytes
from quantkit.graph.selected_outputs import comparable_tensors
from quantkit.graph.weight_store import return_freed_memory
from quantkit.metrics.heads.facts import example_facts
from quantkit.metrics.heads.find import find_head
from quantkit.metrics.heads.head import Head, HeadQuestion
from quantkit.metrics.task import network_facts
from quantkit.numerics import noise_decibels, noise_share
from quantkit.statistics.exact_sum import ExactSum
from quantkit.values import Batch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from quantkit.values import Array

MeasuredBatch: TypeAlias = "tuple[Batch, Mapping[str, Array], int]"
"""A batch, the outputs of the reference, and the number of samples."""
AT_ONCE = 64 << 20
"""Bytes of weights of the candidates that run at once; one that has more runs alone, on all threads."""
KEPT = 64 << 20
"""Bytes of inputs and outputs that a meter keeps for its next call."""
BLOCK = 256 << 20
"""Bytes of inputs and outputs that are held in memory at once."""
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


@dataclass(slots=True)
class EnergySums:
    """Accumulated energies: output → Σ ref² and Σ (ref − out)², each the exact sum of those of all batches.

    samples: output → both for every sample, one row each; of these batches alone, where others are joined to them.
    """

    signal: dict[str, ExactSum] = field(default_factory=dict)
    noise: dict[str, ExactSum] = field(default_factory=dict)
    samples: dict[str, list[NDArray[np.float64]]] = field(default_factory=dict)

    def add(self, name: str, exact: Array, other: Array, samples: int = 1) -> None:
        """Add a tensor. Differences that are not finite count as infinite noise, but not Inf and NaN of both.

        samples: rows of axis 0 that are samples; a tensor of another length counts as one.
        """
        rows = samples if exact.ndim and len(exact) == samples else 1
        wide = exact.astype(np.float64)
        equal = (wide == other) | (np.isnan(wide) & np.isnan(other))
        with np.errstate(invalid="ignore", over="ignore"):
            squares = np.square(np.where(equal, 0.0, wide - other))
            noise = float(squares.sum())
        energies = np.square(wide, where=np.isfinite(wide), out=np.zeros_like(wide))
        self.signal.setdefault(name, ExactSum()).add(float(energies.sum()))
        self.noise.setdefault(name, ExactSum()).add(noise if math.isfinite(noise) else math.inf)
        each = np.stack([part.reshape(rows, wide.size // rows).sum(axis=1) for part in (energies, squares)], axis=1)
        self.samples.setdefault(name, []).append(np.where(np.isfinite(each), each, math.inf))

    def ratio(self, names: Sequence[str]) -> float:
        """Return the mean noise-to-signal ratio of tensors."""
        shares = (noise_share(self.noise[name].value, self.signal[name].value) for name in names)
        return sum(shares) / len(names)

    def state(self) -> Mapping[str, Any]:
        """Return the sums so far as plain values."""
        return {name: [self.signal[name].state(), noise.state()] for name, noise in self.noise.items()}

    def extend(self, state: Mapping[str, Any]) -> None:
        """Add the sums of other batches."""
        for name, (signal, noise) in state.items():
            self.signal.setdefault(name, ExactSum()).extend(signal)
            self.noise.setdefault(name, ExactSum()).extend(noise)


@dataclass(slots=True)
class NoiseTotals:
    """Totals of candidates over samples.

    sums: of every candidate. missing: outputs of the reference that hold NaN. defined: those that hold other values.
    """

    sums: Mapping[str, EnergySums]
    samples: int = 0
    missing: set[str] = field(default_factory=set)
    defined: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, names: Iterable[str]) -> NoiseTotals:
        """Return totals of nothing yet. names: of the candidates."""
        return cls({name: EnergySums() for name in names})

    def state(self) -> Mapping[str, Any]:
        """Return the totals so far as plain values."""
        return {
            "samples": self.samples,
            "missing": sorted(self.missing),
            "defined": sorted(self.defined),
            "sums": {name: sums.state() for name, sums in self.sums.items()},
        }

    def extend(self, state: Mapping[str, Any]) -> None:
        """Add the totals of other samples. KeyError for those of other candidates."""
        self.samples += int(state["samples"])
        self.missing.update(state["missing"])
        self.defined.update(state["defined"])
        for name, sums in self.sums.items():
            sums.extend(state["sums"][name])


@dataclass(frozen=True, slots=True)
class OutputNoise:
    """Noise-to-signal ratio (of energies) of the outputs, and of the candidate's pair; 0 is exact."""

    outputs: float
    local: float = 0.0
    each: Mapping[str, float] = field(default_factory=dict)
    """The ratio of every single output."""
    energies: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = field(
        default_factory=dict, compare=False, repr=False
    )
    """Signal and noise of every output, sample by sample; one figure where its axis 0 does not count samples."""

    @property
    def db(self) -> float:
        """SQNR of the outputs in dB."""
        return noise_decibels(self.outputs)

    @property
    def local_db(self) -> float:
        """SQNR of the candidate's pair in dB."""
        return noise_decibels(self.local)


class NoiseMeter:
    """Measures candidates against `reference` on the samples of `feed`, any number of times.

    Every call of `noise` runs the reference again, with the feed from its start; what is less than `KEPT` bytes in all
    is kept instead. threads: number of candidates that run at once. detections: measure boxes and scores in the rows of
    a detector whose head is known, instead of the rows. frugal: run one candidate at a time, over smaller blocks.
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
        self._reference, self._feed, self._block = reference, feed, KEPT if frugal else BLOCK
        self._threads = threads or min(8, os.cpu_count() or 1)
        self._at_once = 1 if frugal else max(1, min(self._threads, AT_ONCE // max(weight_bytes(reference.proto), 1)))
        self._open_session = open_session
        places = comparable_tensors(reference.proto.graph, reference.outputs)
        wanted = dict.fromkeys(chain(*places.values()))
        self._session: Session | None = open_session(reference, tuple(wanted), threads=self._threads)
        self.outputs = self._session.tensors
        """The tensors that are measured: the float outputs, or what a selection before them reads."""
        replaced = [name for name, tensors in places.items() if tensors != (name,)]
        selection = (
            f"outputs {', '.join(replaced)} hold selected values or their places (TopK, NMS, ArgMax): "
            f"measured instead is what the selection reads: {', '.join(self.outputs)}"
        )
        self._selection_notes = (selection,) if replaced else ()
        if not self.outputs:
            raise ModelError(
                f"{reference.path} has no float output: noise cannot be measured",
                remedy="measure at a float tensor: cut the network behind it",
            )
        self.samples = 0
        """Samples that the last figures are of."""
        self._missing: set[str] = set()
        self._detections = detections
        self._head: Head | None = None
        self._kept: tuple[list[MeasuredBatch], NoiseTotals] | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on outputs that are measured elsewhere, or of which NaN was left out."""
        left_out = "outputs hold NaN without quantization: {}; NaN in the same places does not count"
        return (*self._selection_notes, *([left_out.format(", ".join(sorted(self._missing)))] if self._missing else []))

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
            for block in self._blocks(feed, totals):
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

    def _run_reference(self, feeds: Batch) -> Mapping[str, Array]:
        """Run the reference once; it is opened where it is not."""
        if self._session is None:
            self._session = self._open_session(self._reference, self.outputs, threads=self._threads)
        return self._session.runner()(feeds)

    def _closed(self, block: list[MeasuredBatch]) -> list[MeasuredBatch]:
        """Close the reference, with its weights and the memory of a run, before candidates run over a block."""
        self._session = None
        return_freed_memory()
        return block

    def _blocks(self, feed: Feed, totals: NoiseTotals) -> Iterator[list[MeasuredBatch]]:
        """Yield lists of batches with the reference's outputs, each list as long as memory allows.

        totals: gets the samples, and which outputs hold NaN.
        """
        if self._kept is not None and feed is self._feed:
            block, known = self._kept
            totals.samples += known.samples
            totals.missing |= known.missing
            totals.defined |= known.defined
            yield block
            return
        block, size, blocks = [], 0, 0
        for portion in feed.portions():
            exact = dict(self._run_reference(portion.batch))
            self._find_head(exact)
            for name, values in exact.items():
                missing = np.isnan(values)
                totals.missing |= {name} if missing.any() else set()
                totals.defined |= set() if missing.all() else {name}
            totals.samples += portion.samples
            block.append((portion.batch, exact, portion.samples))
            size += sum(values.nbytes for values in (*portion.batch.values(), *exact.values()))
            if size >= self._block:
                yield self._closed(block)
                block, size, blocks = [], 0, blocks + 1
        if block and not blocks and size < KEPT and feed is self._feed:
            self._kept = block, NoiseTotals({}, totals.samples, set(totals.missing), set(totals.defined))
        if block:
            yield self._closed(block)


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
