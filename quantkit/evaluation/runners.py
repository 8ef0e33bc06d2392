"""Runners that feed batches to models: onnxruntime in a pool of threads, engines on their own streams.

For small batches every core runs whole batches: two threads that share one run of a small network wait for each other
(measured: a Q/DQ ViT takes 1.3 times as long). A batch of a size that a model does not take is split, and its last part
padded with copies of the last sample, whose outputs are dropped.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from quantkit.backends.session import Runner, SessionOpener, backend_label, default_backend, open_session, usable_cores
from quantkit.data import Portion
from quantkit.data.batches import take_samples
from quantkit.errors import ModelError
from quantkit.evaluation.result import Device, Speed
from quantkit.evaluation.subjects import BatchLimits, Subject
from quantkit.values import Array, Batch

LANE_BYTES = 64 << 20
"""Bytes of inputs in flight; larger batches use several cores each instead of running side by side."""
TIMED_SECONDS = 0.3
Pending = Callable[[], Mapping[str, Array]]


class ModelRunner(Protocol):
    """A model that runs batches."""

    def submit(self, batch: Batch, samples: int) -> Pending:
        """Start a batch and return a function that waits for its outputs, which the caller may keep."""

    def speed(self, batch: int) -> Speed | None:
        """Return how fast it ran, or None."""


@dataclass(frozen=True, slots=True)
class RunnerPool:
    """Threads for onnxruntime. lanes: batches that run at once. threads: cores for each of them."""

    pool: ThreadPoolExecutor
    lanes: int
    threads: int
    provider: str = "cpu"


def open_runner_pool(held: ExitStack, first: Batch, provider: str, cores: int | None = None) -> RunnerPool:
    """Open a pool for batches like the first that uses so many cores; None: the whole machine."""
    cores = cores or usable_cores()
    size = sum(array.nbytes for array in first.values())
    lanes = max(1, min(cores, LANE_BYTES // max(size, 1))) if provider == "cpu" else 1
    pool = ThreadPoolExecutor(lanes, "quantkit-run")
    held.callback(pool.shutdown, wait=True, cancel_futures=True)
    return RunnerPool(pool, lanes, max(1, cores // lanes), provider)


def open_model_runner(subject: Subject, pool: RunnerPool, held: ExitStack) -> ModelRunner:
    """Open the runner of a model. ModelError, BackendError."""
    if subject.engine is not None:
        return EngineRunner(subject, pool.lanes, held)
    return OnnxRunner(subject, pool)


class OnnxRunner:
    """Runs an ONNX model on onnxruntime."""

    def __init__(self, subject: Subject, pool: RunnerPool, open_session: SessionOpener = open_session) -> None:
        assert subject.model is not None
        self._session = open_session(
            subject.model, subject.outputs, provider=pool.provider, threads=pool.threads, any_type=True
        )
        self._of_thread = threading.local()
        self._subject, self._pool = subject, pool
        self._types = {i.name: np.dtype(i.dtype) for i in subject.inputs}
        library = backend_label(default_backend(), pool.provider)
        count = pool.lanes * pool.threads
        cores = f"CPU ({count} core{'s' * (count != 1)})"
        self._where = library.replace(" cpu", f", {cores}") if pool.provider == "cpu" else library
        self._device = Device.CPU if pool.provider == "cpu" else Device.GPU
        self._seconds, self._samples = 0.0, 0
        self._lock = threading.Lock()

    def submit(self, batch: Batch, samples: int) -> Pending:
        """Start a batch. Waiting for its outputs raises ModelError."""
        return self._pool.pool.submit(self._work, batch, samples).result

    def _runner(self) -> Runner:
        """Return the runner of this thread."""
        runner: Runner | None = getattr(self._of_thread, "runner", None)
        if runner is None:
            runner = self._of_thread.runner = self._session.runner()
        return runner

    def _work(self, batch: Batch, samples: int) -> Mapping[str, Array]:
        feeds = {name: np.asarray(batch[name], dtype) for name, dtype in self._types.items()}
        pieces, fed, run = [], [], self._runner()
        for part, count in split_batch(feeds, samples, self._subject.limits):
            started = time.perf_counter()
            pieces.append(run(part))
            took = time.perf_counter() - started
            fed.append(count)
            with self._lock:
                self._seconds += took
                self._samples += count
        return join_outputs(pieces, fed, samples, self._subject)

    def speed(self, batch: int) -> Speed | None:
        """Return samples per second with all cores busy, from the time spent inside the runs."""
        if not self._seconds:
            return None
        return Speed(self._samples * self._pool.lanes / self._seconds, None, batch, self._where, self._device)


class EngineRunner:
    """Runs an engine, with a context for every batch in flight."""

    def __init__(self, subject: Subject, lanes: int, held: ExitStack) -> None:
        assert subject.engine is not None
        self._engine, self._subject = subject.engine, subject
        self._lanes = deque(held.enter_context(subject.engine.lane()) for _ in range(lanes + 1))

    def submit(self, batch: Batch, samples: int) -> Pending:
        """Start a batch: copy it in at once if a lane can take all of it, else run it part by part."""
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
        """Return the median device time of one batch, measured now on random values."""
        from quantkit.backends.tensorrt.timing import measure_latencies
        from quantkit.backends.tensorrt.versions import detect_features, tensorrt

        limits = self._subject.limits
        size = max(limits.low, min(batch, limits.high or batch))
        median = float(np.median(measure_latencies(self._engine, size, seconds=TIMED_SECONDS, graph=False)))
        where = f"{self._engine.device.name}, TensorRT {detect_features(tensorrt()).version}"
        return Speed(1000.0 * size / median, median, size, where, Device.GPU)


def split_batch(batch: Batch, samples: int, limits: BatchLimits) -> Iterator[tuple[Batch, int]]:
    """Split a batch into batches that a model takes, each with its number of valid samples."""
    high = limits.high or samples
    if limits.low <= samples <= high or not limits.batched:
        yield batch, samples
        return
    for start in range(0, samples, high):
        count = min(high, samples - start)
        rows = np.minimum(np.arange(start, start + max(count, limits.low)), start + count - 1)
        yield {name: take_samples(a, limits.batched.get(name), rows) for name, a in batch.items()}, count


def indivisible_size(subjects: Sequence[Subject]) -> int | None:
    """Return the batch size of models whose outputs cannot be divided into samples; None if there are none."""
    return max((subject.whole for subject in subjects if subject.whole), default=None)


def indivisible_parts(portion: Portion, subjects: Sequence[Subject]) -> Iterator[Portion]:
    """Cut a batch into batches of the size that models need whose outputs cannot be divided into samples.

    Without such a model the batch stays as it is. A last part that does not fill the size is left out.
    """
    size = indivisible_size(subjects)
    if size in (None, portion.samples):
        yield portion
        return
    batched = subjects[0].limits.batched
    for start in range(0, portion.samples - size + 1, size):
        rows = slice(start, start + size)
        yield Portion(
            {name: take_samples(a, batched.get(name), rows) for name, a in portion.batch.items()},
            portion.names[rows],
            portion.stop,
            None if portion.labels is None else portion.labels[rows],
            portion.axes,
        )


def join_outputs(
    pieces: Sequence[Mapping[str, Array]], counts: Sequence[int], samples: int, subject: Subject
) -> Mapping[str, Array]:
    """Join the outputs of a batch's parts. ModelError if the rows of an output are not samples."""
    limits = subject.limits
    if len(pieces) == 1 and (limits.low <= samples or not limits.batched):
        return pieces[0]
    for name in subject.outputs:
        for piece, count in zip(pieces, counts, strict=True):
            if not piece[name].ndim or len(piece[name]) != max(count, limits.low):
                size = limits.high or limits.low
                raise ModelError(
                    f"{subject.name}: output {name!r} {list(piece[name].shape)} does not have one row per sample, "
                    f"so {samples:,} samples cannot be run in batches of {size}",
                    remedy=f"give whole batches of {size}: a number of samples that is a multiple of it (--limit)",
                )
    return {
        name: np.concatenate([piece[name][:count] for piece, count in zip(pieces, counts, strict=True)])
        for name in subject.outputs
    }
