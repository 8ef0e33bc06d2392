"""Batches on their way to the GPU: decoded ahead, copied on a stream of their own while TensorRT works.

Two slots take turns. A slot has pinned host memory and device memory for every input, made once. A thread fills the
slot that TensorRT does not hold: it takes the next batch from the feed, writes it into pinned memory and enqueues the
copy. `take()` hands out a slot whose copy is done, and gets the one before it back. So GPU memory is one input batch
twice, whatever the data set.
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
    """What staging needs of a device."""

    def current(self) -> Any:
        """A context manager that makes the device current in this thread."""

    def pinned(self, count: int) -> Array:
        """Page-locked bytes."""

    def buffer(self, count: int) -> Any:
        """Device memory with an `address`, a `size` and `free()`."""

    def stream(self) -> Any:
        """A stream with `upload(buffer, array)`, `synchronize()`, `free()`, and `event()` (with `wait()`, `free()`)."""


@dataclass(frozen=True, slots=True)
class StagingSlot:
    """Room for one batch: input → array in pinned memory, input → device memory."""

    host: dict[str, Array]
    device: dict[str, Any]


@dataclass(frozen=True, slots=True)
class StagedBatch:
    """A batch whose copy is under way."""

    slot: StagingSlot
    event: Any
    samples: int

    @property
    def addresses(self) -> dict[str, int]:
        """Input → device address."""
        return {name: buffer.address for name, buffer in self.slot.device.items()}


@dataclass(slots=True)
class FeedFailure:
    """What ended the feed."""

    error: BaseException


@dataclass(slots=True)
class StagingCounts:
    """What went through: batches that were staged and that were taken, samples, and those that were counted twice to
    fill the last batch."""

    staged: int = 0
    taken: int = 0
    samples: int = 0
    repeated: int = 0


class Staging:
    """Streams `portions` to the GPU. Use `start()`, then `take()` until it gives None, and always `close()`.

    Every batch has the shape of the first. A last one that is shorter is filled with its own samples again, which
    `seen.repeated` counts, since TensorRT calibrates in one shape. DataError where a batch in between is another.
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
        """Device memory that is held."""
        return sum(buffer.size for slot in self._slots for buffer in slot.device.values())

    def start(self, first: Portion) -> None:
        """Make the slots for batches like `first`, and begin. BackendError where the GPU has no room."""
        with self._gpu.current():
            self._stream = self._gpu.stream()
            for _ in range(SLOTS):
                device: dict[str, Any] = {}
                self._slots.append(
                    StagingSlot({name: self._room(array) for name, array in first.batch.items()}, device)
                )
                for name, array in first.batch.items():
                    device[name] = self._gpu.buffer(array.nbytes)  # what is there is freed even if the next one fails
        for slot in self._slots:
            self._free.put(slot)
        self._thread = threading.Thread(target=self._work, args=(first,), name="quantkit-stage", daemon=True)
        self._thread.start()

    def take(self) -> StagedBatch | None:
        """The next batch on the device, valid until the next call; None after the last. Raises what went wrong in the
        feed."""
        if self._held is not None:
            self._free.put(self._held)
            self._held = None
        staged = self._ready.get()
        if staged is None:
            self._ready.put(None)  # asked again, the answer stays
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
        """Stop the thread and give all memory back."""
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
                while not self._ready.empty():  # batches that nobody took: their events
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
        self._ready.put(None)  # whoever waits for a batch

    def _room(self, array: Array) -> Array:
        return self._gpu.pinned(array.nbytes)[: array.nbytes].view(array.dtype).reshape(array.shape)

    def _work(self, first: Portion) -> None:
        """The thread: until the feed ends, fails, or `close()` is called."""
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
                f"{where} holds {portion.samples} samples, the first one {first.samples}",
                remedy="TensorRT calibrates in one shape: make all batches but the last of one size",
            )
        if portion.batch.keys() != slot.host.keys():
            raise DataError(
                f"{where} has inputs {', '.join(portion.batch)}, the first batch {', '.join(slot.host)}",
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
    """Copy a batch into its room; a shorter one is filled with its own samples, from the first on. DataError."""
    if array.shape == room.shape:
        room[...] = array
        return
    if array.shape[1:] != room.shape[1:] or len(array) != samples:
        raise DataError(
            f"{where}, input {name!r} has shape {list(array.shape)}, the first batch {list(room.shape)}",
            remedy="TensorRT calibrates in one shape: bring all samples to one size",
        )
    for start in range(0, len(room), samples):
        part = room[start : start + samples]
        part[...] = array[: len(part)]


def mark_last(first: Portion, rest: Iterator[Portion]) -> Iterator[tuple[Portion, bool]]:
    """Portions, each with whether it is the last one; looks one ahead."""
    current = first
    for following in rest:
        yield current, False
        current = following
    yield current, True


def order_addresses(addresses: Mapping[str, int], names: Sequence[str]) -> list[int]:
    """Addresses in the order that TensorRT asks for. DataError where it asks for an input that the feed lacks."""
    missing = [name for name in names if name not in addresses]
    if missing or len(names) != len(addresses):
        raise DataError(
            f"TensorRT asks for inputs {', '.join(names)}, the data has {', '.join(addresses)}",
            remedy="give the model that the network was parsed from",
        )
    return [addresses[name] for name in names]
