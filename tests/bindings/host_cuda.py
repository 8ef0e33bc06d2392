"""`pycuda.driver` without a GPU: host memory stands for device memory, and what goes wrong on a GPU raises here.

Everything needs a context that is current in the calling thread. A copy happens when somebody waits for its stream, and
not before, so that data that is looked at or overwritten too early is seen. Fresh memory is full of NaN. `left()` tells
what was not given back. The rules about threads are pycuda's: an object that dies while its context is not current is
freed only in the thread that the context was made in, and leaks without a word in any other.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

NAN = 0xFF


class Error(Exception):
    """As pycuda's."""


class OutOfMemoryError(Error):
    """pycuda calls it MemoryError."""


MemoryError = OutOfMemoryError  # noqa: A001


@dataclass
class State:
    """One GPU, from `reset()` on."""

    room: int = 1 << 20
    devices: int = 1
    started: bool = True
    memory: dict[int, np.ndarray] = field(default_factory=dict)
    streams: weakref.WeakValueDictionary[int, Stream] = field(default_factory=weakref.WeakValueDictionary)
    stacks: dict[int, list[Context]] = field(default_factory=dict)
    """Thread → its contexts, the current one last."""
    things: dict[int, str] = field(default_factory=dict)
    """Streams, events and pinned memory that are there."""
    lock: threading.RLock = field(default_factory=threading.RLock)
    count: itertools.count[int] = field(default_factory=lambda: itertools.count(1))


STATE = State()


def reset(*, room: int = 1 << 20, devices: int = 1, started: bool = True) -> None:
    """A fresh GPU."""
    global STATE
    STATE = State(room=room, devices=devices, started=started)


def left() -> list[str]:
    """What nobody gave back."""
    pushed = [f"{len(stack)} contexts in thread {thread}" for thread, stack in STATE.stacks.items() if stack]
    return [*pushed, *(f"{len(m)} bytes of device memory" for m in STATE.memory.values()), *STATE.things.values()]


def current() -> Context:
    """The context of this thread."""
    stack = STATE.stacks.get(threading.get_ident())
    if not stack:
        raise Error("invalid context: no currently active context?")
    return stack[-1]


def at(address: int, count: int) -> np.ndarray:
    """Device memory, as bytes."""
    with STATE.lock:
        for start, memory in STATE.memory.items():
            if start <= address and address + count <= start + len(memory):
                return memory[address - start : address - start + count]
    raise Error(f"invalid device address: {count} bytes at {address}")


def watch(thing: Any, kind: str) -> None:
    """Note a thing of the current context, and whether it can be destroyed once nobody holds it."""
    state, number, context = STATE, next(STATE.count), current()
    state.things[number] = kind

    def destroy() -> None:
        stack = state.stacks.get(threading.get_ident())
        if (stack and stack[-1] is context) or threading.get_ident() == context.thread:
            del state.things[number]
        else:
            state.things[number] = f"{kind} (its last reference went where its context was not current)"

    weakref.finalize(thing, destroy).atexit = False


# ── what quantkit uses ──


def init(flags: int = 0) -> None:
    if not STATE.started:
        raise Error("cuInit failed: no CUDA-capable device is detected")


def get_driver_version() -> int:
    return 12080


class Context:
    def __init__(self) -> None:
        self.thread = threading.get_ident()

    def push(self) -> None:
        STATE.stacks.setdefault(threading.get_ident(), []).append(self)

    @staticmethod
    def pop() -> None:
        current()
        STATE.stacks[threading.get_ident()].pop()


class Device:
    def __init__(self, number: int) -> None:
        if not 0 <= number < STATE.devices:
            raise Error("cuDeviceGet failed: invalid device ordinal")

    @staticmethod
    def count() -> int:
        return STATE.devices

    def name(self) -> str:
        return "Host GPU"

    def compute_capability(self) -> tuple[int, int]:
        return 9, 0

    def retain_primary_context(self) -> Context:
        return Context()


def mem_get_info() -> tuple[int, int]:
    current()
    return STATE.room - sum(map(len, STATE.memory.values())), STATE.room


class Allocation:
    def __init__(self, count: int) -> None:
        if mem_get_info()[0] < count:
            raise OutOfMemoryError("cuMemAlloc failed: out of memory")
        memory = np.full(count, NAN, np.uint8)
        self._address: int | None = memory.ctypes.data
        with STATE.lock:
            STATE.memory[self._address] = memory

    def __int__(self) -> int:
        assert self._address is not None, "the address of freed memory"
        return self._address

    def free(self) -> None:
        current()
        if self._address is None:
            raise Error("device_allocation::free failed: invalid handle")
        for stream in list(STATE.streams.values()):  # cuMemFree waits for all that is under way
            stream.synchronize()
        with STATE.lock:
            del STATE.memory[self._address]
        self._address = None


def mem_alloc(count: int) -> Allocation:
    assert count > 0, "cuMemAlloc refuses 0 bytes"
    return Allocation(count)


def pagelocked_empty(shape: int, dtype: Any) -> np.ndarray:
    array = np.full(shape, NAN, np.uint8).view(dtype)
    watch(array.base, "pinned memory")  # every view holds this one
    return array


class Stream:
    def __init__(self, flags: int) -> None:
        assert flags == 1, "a stream that waits for the default stream"
        watch(self, "stream")
        self.handle = next(STATE.count)
        self._work: deque[Callable[[], None]] = deque()
        STATE.streams[self.handle] = self

    def enqueue(self, work: Callable[[], None]) -> None:
        current()
        self._work.append(work)

    def synchronize(self, until: Event | None = None) -> None:
        current()
        with STATE.lock:
            while self._work and not (until and until.reached):
                self._work.popleft()()


class Event:
    def __init__(self) -> None:
        watch(self, "event")
        self.reached: int | None = None
        self._stream: Stream | None = None

    def record(self, stream: Stream) -> Event:
        self._stream, self.reached = stream, None
        stream.enqueue(self._reach)
        return self

    def _reach(self) -> None:
        self.reached = next(STATE.count)

    def synchronize(self) -> None:
        assert self._stream is not None, "an event that was never recorded"
        self._stream.synchronize(until=self)

    def time_since(self, earlier: Event) -> float:
        current()
        if self.reached is None or earlier.reached is None:
            raise Error("cuEventElapsedTime failed: not ready")
        return float(self.reached - earlier.reached)


def memcpy_htod_async(address: int, array: np.ndarray, stream: Stream) -> None:
    assert array.flags.c_contiguous
    at(address, array.nbytes)
    stream.enqueue(lambda: np.copyto(at(address, array.nbytes), array.reshape(-1).view(np.uint8)))


def memcpy_dtoh_async(array: np.ndarray, address: int, stream: Stream) -> None:
    assert array.flags.c_contiguous
    at(address, array.nbytes)
    stream.enqueue(lambda: np.copyto(array.reshape(-1).view(np.uint8), at(address, array.nbytes)))
