"""A GPU in host memory, for tests of what streams to one: made-up addresses, and every rule of use checked."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantkit.data import Portion
from quantkit.errors import BackendError

Array = NDArray[Any]
RUBBISH = 0xA5
"""What fresh memory holds."""


class FakeGpu:
    """late: uploads are done only when somebody waits for them. room: bytes of device memory.
    pins: how often there is pinned memory.

    Memory and streams are made, used and freed while the context is current in that thread, which is asserted.
    """

    def __init__(self, *, late: bool = True, room: int = 1 << 40, pins: int | None = None) -> None:
        self.late, self.room, self.pins = late, room, pins
        self.memory: dict[int, Array] = {}
        self.peak = 0
        self.buffers = 0
        self.alive: set[FakeStream | FakeEvent] = set()
        self._addresses = itertools.count(0x7F0000000000, 512)
        self._thread = threading.local()
        self.lock = threading.RLock()

    @property
    def held(self) -> int:
        """Bytes that are not freed."""
        return sum(len(block) for block in self.memory.values())

    @property
    def given_back(self) -> bool:
        """Whether all memory, streams and events are freed."""
        return not self.memory and not self.alive

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        self._thread.depth = getattr(self._thread, "depth", 0) + 1
        try:
            yield
        finally:
            self._thread.depth -= 1

    def need_context(self) -> None:
        assert getattr(self._thread, "depth", 0) > 0, "the context is not current in this thread"

    def pinned(self, count: int) -> Array:
        self.need_context()
        if self.pins is not None:
            if self.pins == 0:
                raise MemoryError("no page-locked memory is left")
            self.pins -= 1
        return np.full(max(count, 1), RUBBISH, np.uint8)

    def buffer(self, count: int) -> FakeBuffer:
        self.need_context()
        if self.held + count > self.room:
            raise BackendError("the GPU is full", remedy="give less")
        return FakeBuffer(self, count)

    def stream(self) -> FakeStream:
        self.need_context()
        return FakeStream(self)

    def reserve(self, count: int) -> int:
        address = next(self._addresses)
        self.memory[address] = np.full(count, RUBBISH, np.uint8)
        self.peak = max(self.peak, self.held)
        self.buffers += 1
        return address

    def read(self, address: int, like: Array) -> Array:
        """What lies at an address, as an array like `like`."""
        with self.lock:
            return self.memory[address][: like.nbytes].copy().view(like.dtype).reshape(like.shape)


class FakeBuffer:
    def __init__(self, gpu: FakeGpu, count: int) -> None:
        self._gpu, self.size = gpu, count
        self.address = gpu.reserve(count)

    def free(self) -> None:
        self._gpu.need_context()
        del self._gpu.memory[self.address]


class FakeStream:
    """Work in order: done at once, or, on a late GPU, when an event behind it is waited for."""

    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu
        self._pending: list[Callable[[], None]] = []
        self._done = 0
        gpu.alive.add(self)

    def need(self) -> None:
        self._gpu.need_context()
        assert self in self._gpu.alive, "the stream was freed"

    def free(self) -> None:
        self.need()
        self._gpu.alive.remove(self)

    def upload(self, buffer: FakeBuffer, array: Array) -> None:
        self.need()

        def copy() -> None:
            raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            assert raw.nbytes == buffer.size
            self._gpu.memory[buffer.address][:] = raw

        with self._gpu.lock:
            self._pending.append(copy)
            if not self._gpu.late:
                self.reach(len(self._pending))

    def event(self) -> FakeEvent:
        self.need()
        return FakeEvent(self._gpu, self, len(self._pending))

    def synchronize(self) -> None:
        self.need()
        self.reach(len(self._pending))

    def reach(self, moment: int) -> None:
        with self._gpu.lock:
            for work in self._pending[self._done : moment]:
                work()
            self._done = max(self._done, moment)


class FakeEvent:
    def __init__(self, gpu: FakeGpu, stream: FakeStream, moment: int) -> None:
        self._gpu, self._stream, self._moment = gpu, stream, moment
        gpu.alive.add(self)

    def need(self) -> None:
        self._gpu.need_context()
        assert self in self._gpu.alive, "the event was freed"

    def free(self) -> None:
        self.need()
        self._gpu.alive.remove(self)

    def wait(self) -> None:
        self.need()
        self._stream.reach(self._moment)


class FakeFeed:
    """Portions of the given lengths, of two inputs with a batch axis and one without; `failure` comes before the
    batch of number `at`. closed: whether the stream of portions was given back."""

    def __init__(
        self, lengths: list[int], *, seed: int = 0, at: int | None = None, failure: BaseException | None = None
    ) -> None:
        random = np.random.default_rng(seed)
        self.at, self.failure, self.closed = at, failure, False
        self.portions: list[Portion] = []
        stop = 0
        for number, length in enumerate(lengths):
            stop += length
            batch: dict[str, Array] = {
                "image": random.normal(size=(length, 2, 3)).astype(np.float32),
                "ids": random.integers(0, 1 << 40, length),
                "weights": np.arange(5.0),
            }
            self.portions.append(Portion(batch, tuple(f"part {number}.{i}" for i in range(length)), stop))

    @property
    def bytes(self) -> int:
        """Of the first batch."""
        return sum(array.nbytes for array in self.portions[0].batch.values())

    def __call__(self) -> Iterator[Portion]:
        try:
            for number, portion in enumerate(self.portions):
                if number == self.at and self.failure is not None:
                    raise self.failure
                yield portion
            if self.at == len(self.portions) and self.failure is not None:
                raise self.failure
        finally:
            self.closed = True


def filled(array: Array, portion: Portion, samples: int) -> Array:
    """What has to lie on the GPU for an input: a short batch is filled with its own samples, from the first on."""
    if len(array) != portion.samples or (array.ndim == 1 and array.dtype.kind == "f"):
        return array
    return array[np.arange(samples) % portion.samples]
