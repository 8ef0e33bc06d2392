"""The work of a calibrator without TensorRT: it hands out batches, keeps errors, takes the table. Tests need no GPU."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from quantkit.calibration.tensorrt.staging import Staging, StagingCounts, StagingDevice, order_addresses
from quantkit.data import Portion
from quantkit.errors import BackendError, DataError


@dataclass(frozen=True, slots=True)
class CalibratorOutcome:
    """The table as TensorRT wrote it, how often TensorRT asked for a batch, and counts of the batches."""

    table: bytes
    calls: int
    seen: StagingCounts
    reused: bool


class BatchSource:
    """The batches of one calibration. `open_portions` opens the data; `there` is a table to be reused, or None.

    An error in a callback is kept, because TensorRT's bindings print a Python exception and treat it as the end of the
    data; `outcome()` raises it. A table that TensorRT makes from the data before the error is discarded.
    """

    def __init__(
        self,
        gpu: Callable[[], StagingDevice],
        open_portions: Callable[[], Iterator[Portion]],
        there: bytes | None = None,
        advance: Callable[[int], None] | None = None,
        stopped: Callable[[], BaseException | None] | None = None,
    ) -> None:
        self._gpu, self._open, self._there = gpu, open_portions, there
        self._advance, self._stopped = advance, stopped
        self._staging: Staging | None = None
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._written: bytes | None = None
        self._ended = False
        self._portions: Iterator[Portion] | None = None
        self._first: Portion | None = None
        self.calls = 0
        self.seen = StagingCounts()
        self.device_bytes = 0

    @property
    def over(self) -> bool:
        """True if there is a table or an error, so that the build can end."""
        return self._written is not None or self._error is not None

    def batch(self, names: Sequence[str]) -> list[int] | None:
        """Return the device addresses of the next batch in the order of `names`; None at the end or after an error."""
        self.calls += 1
        if self._error is not None or self._ended:
            return None
        try:
            addresses = self._next(names)
            if addresses is None:
                self._finish()
                self._ended = True
            return addresses
        except BaseException as error:
            self._error = error
            with contextlib.suppress(Exception):  # the first error is the one to report
                self._finish()
            return None

    def _next(self, names: Sequence[str]) -> list[int] | None:
        stop = self._stopped() if self._stopped else None
        if stop is not None:
            raise stop
        if self._staging is None:
            first = self.first()
            order_addresses(dict.fromkeys(first.batch, 0), names)
            assert self._portions is not None
            self._staging = Staging(self._gpu(), self._portions)
            self.seen = self._staging.seen
            self._staging.start(first)
            self.device_bytes = self._staging.bytes
        staged = self._staging.take()
        if staged is None:
            return None
        if self._advance:
            self._advance(staged.samples)
        return order_addresses(staged.addresses, names)

    def first(self) -> Portion:
        """Return the first batch, whose shapes are those of the calibration; it is not read twice. DataError."""
        if self._first is None:
            self._portions = self._open()
            self._first = next(self._portions, None)
            if self._first is None:
                raise DataError("the data yields no samples", remedy="give at least one sample")
        return self._first

    def read(self) -> bytes | None:
        """Return the table to be reused, for `read_calibration_cache`."""
        return self._there

    def write(self, table: bytes) -> None:
        """Take a table, from `write_calibration_cache`: only after all data, or again after a table was reused."""
        if self._error is None and (self._ended or self._there is not None):
            self._written = table
        elif self._error is None:
            self._error = BackendError(
                f"TensorRT wrote a table after {self.seen.taken} batches, before the end of the data",
                remedy="calibrate again",
            )

    def fail(self, error: BaseException) -> None:
        """Keep an error of another callback, unless there is one already."""
        self._error = self._error or error

    def outcome(self) -> CalibratorOutcome:
        """Return the result after the build. Raises the error of a callback; BackendError if there is no table."""
        self.close()
        if self._error is not None:
            raise self._error
        if self._there is not None:
            if self.calls:
                raise BackendError(
                    f"TensorRT did not accept the table: it asked for {self.calls} batches",
                    remedy="the header must name this TensorRT and this calibrator (quantkit table convert)",
                )
            return CalibratorOutcome(self._there, 0, self.seen, True)
        if self._written is None:
            raise BackendError(
                "TensorRT made no calibration table", remedy="see its errors above; the builder needs the INT8 flag"
            )
        return CalibratorOutcome(self._written, self.calls, self.seen, False)

    def close(self) -> None:
        """Free the GPU memory."""
        self._finish()

    def _finish(self) -> None:
        with self._lock:  # a second caller waits until everything is closed
            staging, self._staging = self._staging, None
            if staging is not None:
                staging.close()
            close = getattr(self._portions, "close", None)
            if close is not None:
                close()
