"""Measured kernel times that one build leaves to the next: as an object in one process, and as a file between two.

TensorRT 8.6 refuses most files that hold times of attention or pointwise regions (`Myelin error from unknown graph`,
measured), and measures again. The object itself "can be shared by multiple builder instances" (documentation of
`IBuilderConfig::createTimingCache`), so builds of one process share it while `shared_times` is active.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any


@dataclass(slots=True)
class SharedTimes:
    """A timing cache that the builds of one GPU share. taken: whether a build has used it; files: those that were
    combined with it, or written of it."""

    cache: Any
    taken: bool = False
    files: set[bytes] = field(default_factory=set)


ACTIVE: dict[int, SharedTimes] = {}
"""GPU → what its builds share now."""


@dataclass(frozen=True, slots=True)
class UsedTimes:
    """The timing cache of a build. known: whether it held times before; refused: whether TensorRT refused the file."""

    cache: Any
    known: bool = False
    refused: bool = False


@contextmanager
def shared_times(config: Any, number: int) -> Iterator[None]:
    """Let builds on a GPU share kernel times; nothing changes where they already do. config: makes the cache."""
    if number in ACTIVE:
        yield
        return
    ACTIVE[number] = SharedTimes(config.create_timing_cache(b""))
    try:
        yield
    finally:
        del ACTIVE[number]


def use_times(config: Any, number: int, file: bytes | None) -> UsedTimes:
    """Give a builder configuration the times that the builds of this process share, and those of a file."""
    shared = ACTIVE.get(number)
    if shared is None or not config.set_timing_cache(shared.cache, False):
        return use_file(config, file)
    refused = False
    if file and sha256(file).digest() not in shared.files:
        loaded = config.create_timing_cache(file)
        refused = loaded is None or not shared.cache.combine(loaded, False)
        shared.taken = shared.taken or not refused
    known, shared.taken = shared.taken, True
    return UsedTimes(shared.cache, known, refused)


def use_file(config: Any, file: bytes | None) -> UsedTimes:
    """Give a builder configuration the times of a file, or an empty cache where TensorRT refuses it."""
    if file:
        cache = config.create_timing_cache(file)
        if cache is not None and config.set_timing_cache(cache, False):
            return UsedTimes(cache, known=True)
    cache = config.create_timing_cache(b"")
    config.set_timing_cache(cache, False)
    return UsedTimes(cache, refused=bool(file))


def times_bytes(cache: Any, number: int) -> bytes:
    """Return the content of the file for a build's times; the builds that share them know it already."""
    content = bytes(cache.serialize())
    if shared := ACTIVE.get(number):
        shared.files.add(sha256(content).digest())
    return content
