"""Reading many small parts of large objects with few requests.

The parts that will be read are known in advance, in order. Neighbours are read together: a gap between them costs less
than another request. The last few pieces stay in memory, because threads ask for their parts almost in order.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from quantkit.data.data_file import DataFile

LARGEST_GAP = 1 << 17
"""Bytes between two parts that are read and thrown away."""
LARGEST_PIECE = 1 << 22
"""Bytes that are read at once, or one part if it is larger."""
KEPT = 4


class ExtentReader:
    """Parts (file, start, stop) of objects, read by their number."""

    def __init__(self, files: Sequence[DataFile], extents: Sequence[tuple[int, int, int]]) -> None:
        self._files, self._extents = files, extents
        self._piece_of: list[int] = []
        self._pieces: list[tuple[int, int, int]] = []
        for file, start, stop in extents:
            if self._pieces:
                other, first, last = self._pieces[-1]
                near = file == other and 0 <= start - last <= LARGEST_GAP
                if near and stop - first <= LARGEST_PIECE:
                    self._pieces[-1] = (file, first, stop)
                    self._piece_of.append(len(self._pieces) - 1)
                    continue
            self._pieces.append((file, start, stop))
            self._piece_of.append(len(self._pieces) - 1)
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._locks: dict[int, threading.Lock] = {}
        self._lock = threading.Lock()

    def read(self, number: int) -> bytes:
        """Return the bytes of a part. DataError."""
        file, start, stop = self._extents[number]
        piece = self._piece_of[number]
        first = self._pieces[piece][1]
        with self._lock:
            mine = self._locks.setdefault(piece, threading.Lock())
        with mine:  # threads that need the same piece wait for one request
            with self._lock:
                content = self._kept.get(piece)
            if content is None:
                content = self._files[file].read(*self._pieces[piece][1:])
                with self._lock:
                    self._kept[piece] = content
                    while len(self._kept) > KEPT:
                        self._locks.pop(self._kept.popitem(last=False)[0], None)
        return content[start - first : stop - first]

    def close(self) -> None:
        """Forget what was read."""
        with self._lock:
            self._kept.clear()
            self._locks.clear()
