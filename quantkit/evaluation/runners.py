"""Models at work on batches: onnxruntime in a pool of threads, engines on streams of their own.

Every core runs whole batches by itself where they are small: two threads that share one run of a small network wait for
each other (measured: a Q/DQ ViT takes 1.3 times as long). A batch that a model does not take is cut, and its last part
filled up with copies of its last sample, whose outputs are left out.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from quantkit.errors import ModelError
from quantkit.evaluation.result import Speed
from quantkit.evaluation.subjects import BatchLimits, Subject
from quantkit.values import Array, Batch

LANE_BYTES = 64 << 20
"""Inputs under way at once; larger batches share their cores rather than lying side by side."""
TIMED_SECONDS = 0.3
Pending = Callable[[], Mapping[str, Array]]


class ModelRunner(Protocol):
    """A model that batches are handed to."""

    def submit(self, batch: Batch, samples: int) -> Pending:
        """Begin with a batch; what comes back waits for its outputs. The outputs are the caller's to keep."""

    def speed(self, batch: int) -> Speed | None:
        """How fast it ran."""


@dataclass(frozen=True, slots=True)
class RunnerPool:
    """Threads for onnxruntime. lanes: batches at work at once; threads: cores that each of them has."""

    pool: ThreadPoolExecutor
    lanes: int
    threads: int
    provider: str = "cpu"


def open_runner_pool(held: ExitStack, first: Batch, provider: str) -> RunnerPool:
    """A team for batches like the first, as large as the machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    size = sum(array.nbytes for array in first.values())
    lanes = max(1, min(cores, LANE_BYTES // max(size, 1))) if provider == "cpu" else 1
    pool = ThreadPoolExecutor(lanes, "quantkit-run")
    held.callback(pool.shutdown, wait=True, cancel_futures=True)
    return RunnerPool(pool, lanes, max(1, cores // lanes), provider)


def open_model_runner(subject: Subject, team: RunnerPool, held: ExitStack) -> ModelRunner:
    """Ready to run. ModelError, BackendError."""
    if subject.engine is not None:
        return EngineRunner(subject, team.lanes, held)
    return OnnxRunner(subject, team)


class OnnxRunner:
    """An ONNX model on onnxruntime."""

    def __init__(self, subject: Subject, team: RunnerPool) -> None:
        from quantkit.backends.onnxruntime import PlainRunner, open_session, version, with_outputs

        assert subject.model is not None
        session = open_session(with_outputs(subject.model, ()), subject.model, team.provider, team.threads)
        self._run = PlainRunner(session, subject.outputs)
        self._subject, self._team = subject, team
        self._types = {i.name: np.dtype(i.dtype) for i in subject.inputs}
        library = version(team.provider)
        cores = f"processor ({team.lanes * team.threads} cores)"
        self._where = library.replace(" cpu", f", {cores}") if team.provider == "cpu" else library
        self._seconds, self._samples = 0.0, 0
        self._lock = threading.Lock()

    def submit(self, batch: Batch, samples: int) -> Pending:
        """Begin with a batch. The outputs raise ModelError."""
        return self._team.pool.submit(self._work, batch, samples).result

    def _work(self, batch: Batch, samples: int) -> Mapping[str, Array]:
        feeds = {name: np.asarray(batch[name], dtype) for name, dtype in self._types.items()}
        pieces, fed = [], []
        for part, count in split_batch(feeds, samples, self._subject.limits):
            started = time.perf_counter()
            pieces.append(self._run(part))
            took = time.perf_counter() - started
            fed.append(count)
            with self._lock:
                self._seconds += took
                self._samples += count
        return join_outputs(pieces, fed, samples, self._subject)

    def speed(self, batch: int) -> Speed | None:
        """Samples a second with all cores at it, by the time inside the runs."""
        if not self._seconds:
            return None
        return Speed(self._samples * self._team.lanes / self._seconds, None, batch, self._where)


class EngineRunner:
    """An engine, with a context for every batch under way."""

    def __init__(self, subject: Subject, lanes: int, held: ExitStack) -> None:
        assert subject.engine is not None
        self._engine, self._subject = subject.engine, subject
        self._lanes = deque(held.enter_context(subject.engine.lane()) for _ in range(lanes + 1))

    def submit(self, batch: Batch, samples: int) -> Pending:
        """Begin with a batch: copied in at once where one lane takes it whole, part by part otherwise."""
        pieces = list(split_batch(batch, samples, self._subject.limits))
        if len(pieces) > 1 or not self._lanes:
            return lambda: self._one_by_one(pieces, samples)
        lane = self._lanes.popleft()
        lane.submit(pieces[0][0])

        def outputs() -> Mapping[str, Array]:
            found = lane.outputs()
            self._lanes.append(lane)
            return join_outputs([found], [samples], samples, self._subject)

        return outputs

    def _one_by_one(self, pieces: Sequence[tuple[Batch, int]], samples: int) -> Mapping[str, Array]:
        found = list(self._engine.run((part for part, _ in pieces), streams=2))
        return join_outputs(found, [count for _, count in pieces], samples, self._subject)

    def speed(self, batch: int) -> Speed | None:
        """The device's median time for one batch alone, measured now on made-up values."""
        from quantkit.backends.tensorrt.timing import measure_latencies
        from quantkit.backends.tensorrt.versions import detect_features, tensorrt

        limits = self._subject.limits
        size = max(limits.low, min(batch, limits.high or batch))
        median = float(np.median(measure_latencies(self._engine, size, seconds=TIMED_SECONDS, graph=False)))
        where = f"{self._engine.device.name}, TensorRT {detect_features(tensorrt()).version}"
        return Speed(1000.0 * size / median, median, size, where)


def split_batch(batch: Batch, samples: int, limits: BatchLimits) -> Iterator[tuple[Batch, int]]:
    """A batch as batches that a model takes, and how many samples of each count."""
    high = limits.high or samples
    if limits.low <= samples <= high or not limits.batched:
        yield batch, samples
        return
    for start in range(0, samples, high):
        count = min(high, samples - start)
        rows = np.minimum(np.arange(start, start + max(count, limits.low)), start + count - 1)
        yield {name: a[rows] if name in limits.batched else a for name, a in batch.items()}, count


def join_outputs(
    pieces: Sequence[Mapping[str, Array]], counts: Sequence[int], samples: int, subject: Subject
) -> Mapping[str, Array]:
    """The outputs of the parts of a batch as those of the batch. ModelError where an output's rows are not samples."""
    limits = subject.limits
    if len(pieces) == 1 and (limits.low <= samples or not limits.batched):
        return pieces[0]
    for name in subject.outputs:
        for piece, count in zip(pieces, counts, strict=True):
            if not piece[name].ndim or len(piece[name]) != max(count, limits.low):
                size = f" of {limits.high}" if limits.high else ""
                raise ModelError(
                    f"{subject.name}: output {name!r} {list(piece[name].shape)} has no row for each sample, "
                    f"so batches cannot be put together from batches{size}",
                    remedy=f"use --batch-size {limits.high or limits.low}",
                )
    return {
        name: np.concatenate([piece[name][:count] for piece, count in zip(pieces, counts, strict=True)])
        for name in subject.outputs
    }
