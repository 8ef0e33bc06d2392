"""The way of batches to the GPU: decoded ahead, copied on a separate stream while TensorRT works.

Two slots take turns. A slot has pinned host memory and device memory for every input, allocated once. A thread fills
the slot that TensorRT does not hold: it takes the next batch from the feed, writes it into pinned memory and enqueues
the copy. `take()` hands out a slot whose copy is done, and gets the previous one back. GPU memory therefore holds two
input batches, whatever the size of the data set.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from quantkit.data import Portion
from quantkit.errors import DataError
from quantkit.values import Array

SLOTS = 2


class StagingDevice(Protocol):
    """The part of a device that staging needs."""

    def current(self) -> Any:
        """Return a context manager that makes the device current in this thread."""

    def pinned(self, count: int) -> Array:
        """Return page-locked bytes."""

    def buffer(self, count: int) -> Any:
        """Return device memory with an `address`, a `size` and `free()`."""

    def stream(self) -> Any:
        """Return a stream: `upload(buffer, array)`, `synchronize()`, `free()`, `event()` (with `wait()`, `free()`)."""


@dataclass(frozen=True, slots=True)
class StagingSlot:
    """Memory for one batch: input → array in pinned memory, input → device memory."""

    host: dict[str, Array]
    device: dict[str, Any]


@dataclass(frozen=True, slots=True)
class StagedBatch:
    """A batch whose copy was enqueued."""

    slot: StagingSlot
    event: Any
    samples: int

    @property
    def addresses(self) -> dict[str, int]:
        """Device address by input."""
        return {name: buffer.address for name, buffer in self.slot.device.items()}


@dataclass(slots=True)
class FeedFailure:
    """The error that ended the feed."""

    error: BaseException


@dataclass(slots=True)
class StagingCounts:
    """Counts of batches that were staged and taken, of samples, and of samples that were repeated to fill the last
    batch."""

    staged: int = 0
    taken: int = 0
    samples: int = 0
    repeated: int = 0


class Staging:
    """A stream of `portions` to the GPU. Call `start()`, then `take()` until it returns None, and always `close()`.

    Every batch has the shape of the first. A shorter last one is filled up by repeating its samples, which
    `seen.repeated` counts, because TensorRT calibrates with one shape. DataError where another batch differs.
    """

    def __init__(self, gpu: StagingDevice, portions: Iterator[Portion]) -> None:
        self._gpu, self._portions = gpu, portions
        self._free: queue.SimpleQueue[StagingSlot | None] = queue.SimpleQueue()
        self._ready: queue.SimpleQueue[StagedBatch | FeedFailure | None] = queue.SimpleQueue()
        self._held: StagingSlot | None = None
        self._slots: list[StagingSlot] = []
        self._thread: threading.Thread | None = None
        self._closing = False
        self._stream: Any = None
        self.seen = StagingCounts()

    @property
    def bytes(self) -> int:
        """Bytes of device memory."""
        return sum(buffer.size for slot in self._slots for buffer in slot.device.values())

    def start(self, first: Portion) -> None:
        """Allocate the slots for batches like `first`, and begin. BackendError where GPU memory does not suffice."""
        with self._gpu.current():
            self._stream = self._gpu.stream()
            for _ in range(SLOTS):
                device: dict[str, Any] = {}
                self._slots.append(
                    StagingSlot({name: self._room(array) for name, array in first.batch.items()}, device)
                )
                for name, array in first.batch.items():
                    device[name] = self._gpu.buffer(array.nbytes)  # buffers so far are freed even if the next one fails
        for slot in self._slots:
            self._free.put(slot)
        self._thread = threading.Thread(target=self._work, args=(first,), name="quantkit-stage", daemon=True)
        self._thread.start()

    def take(self) -> StagedBatch | None:
        """Return the next batch on the device, valid until the next call; None after the last. Raises the error of the
        feed."""
        if self._held is not None:
            self._free.put(self._held)
            self._held = None
        staged = self._ready.get()
        if staged is None:
            self._ready.put(None)  # the end stays the end if asked again
            return None
        if isinstance(staged, FeedFailure):
            self._ready.put(staged)
            raise staged.error
        with self._gpu.current():
            staged.event.wait()
            staged.event.free()
        self._held = staged.slot
        self.seen.taken += 1
        return staged

    def close(self) -> None:
        """Stop the thread and free all memory."""
        self._closing = True
        self._free.put(None)
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        slots, self._slots = self._slots, []
        with self._gpu.current():
            try:
                if self._stream is not None:
                    self._stream.synchronize()
            finally:
                while not self._ready.empty():  # events of batches that were not taken
                    waiting = self._ready.get()
                    if isinstance(waiting, StagedBatch):
                        waiting.event.free()
                for slot in slots:
                    for buffer in slot.device.values():
                        buffer.free()
                    slot.host.clear()
                if self._stream is not None:
                    self._stream.free()
                    self._stream = None
        self._ready.put(None)  # ends the wait for a batch

    def _room(self, array: Array) -> Array:
        return self._gpu.pinned(array.nbytes)[: array.nbytes].view(array.dtype).reshape(array.shape)

    def _work(self, first: Portion) -> None:
        """Fill slots until the feed ends or fails, or `close()` is called; runs in the thread."""
        try:
            with self._gpu.current():
                for portion, last in mark_last(first, self._portions):
                    slot = self._free.get()
                    if slot is None or self._closing:
                        return
                    self._fill(slot, portion, first, last=last)
            self._ready.put(None)
        except BaseException as error:
            self._ready.put(FeedFailure(error))
        finally:
            close = getattr(self._portions, "close", None)
            if close:
                close()

    def _fill(self, slot: StagingSlot, portion: Portion, first: Portion, *, last: bool) -> None:
        short = first.samples - portion.samples
        where = f"batch {self.seen.staged + 1} ({portion.names[0]} …)"
        if short < 0 or (short > 0 and not last):
            raise DataError(
                f"{where} holds {portion.samples} samples, but the first one {first.samples}",
                remedy="TensorRT calibrates with one shape: give all batches but the last the same size",
            )
        if portion.batch.keys() != slot.host.keys():
            raise DataError(
                f"{where} has inputs {', '.join(portion.batch)}, but the first batch {', '.join(slot.host)}",
                remedy="give every batch the same inputs",
            )
        for name, array in portion.batch.items():
            copy_filled(slot.host[name], array, portion.samples, where, name)
            self._stream.upload(slot.device[name], slot.host[name])
        self.seen.staged += 1
        self.seen.samples += portion.samples
        self.seen.repeated += short
        self._ready.put(StagedBatch(slot, self._stream.event(), portion.samples))


def copy_filled(room: Array, array: Array, samples: int, where: str, name: str) -> None:
    """Copy a batch into a slot; a shorter one is filled up by repeating its samples from the first. DataError."""
    if array.shape == room.shape:
        room[...] = array
        return
    if array.shape[1:] != room.shape[1:] or len(array) != samples:
        raise DataError(
            f"{where}, input {name!r} has shape {list(array.shape)}, but the first batch {list(room.shape)}",
            remedy="TensorRT calibrates with one shape: bring all samples to the same size",
        )
    for start in range(0, len(room), samples):
        part = room[start : start + samples]
        part[...] = array[: len(part)]


def mark_last(first: Portion, rest: Iterator[Portion]) -> Iterator[tuple[Portion, bool]]:
    """Yield portions, each with True if it is the last one; reads one ahead."""
    current = first
    for following in rest:
        yield current, False
        current = following
    yield current, True


def order_addresses(addresses: Mapping[str, int], names: Sequence[str]) -> list[int]:
    """Return addresses in the order that TensorRT asks for. DataError where the feed lacks one of its inputs."""
    missing = [name for name in names if name not in addresses]
    if missing or len(names) != len(addresses):
        raise DataError(
            f"TensorRT asks for inputs {', '.join(names)}, but the data has {', '.join(addresses)}",
            remedy="give the model that the network was parsed from",
        )
    return [addresses[name] for name in names]
