"""What a calibrator does, without TensorRT: hands out batches, keeps errors, takes the table. Tests need no GPU."""

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
    """What a calibration gave: the table as TensorRT wrote it, how often TensorRT asked for a batch, what it saw."""

    table: bytes
    calls: int
    seen: StagingCounts
    reused: bool


class BatchSource:
    """One calibration. `open_portions` opens the data; `there` is a table to be reused, or None.

    Whatever goes wrong in a callback is kept, since TensorRT's binding prints a Python exception and takes it for the
    end of the data; `outcome()` raises it. A table that TensorRT makes of what came before the error is thrown away.
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
        """Whether the table is there, or an error: nothing more is wanted of the build."""
        return self._written is not None or self._error is not None

    def batch(self, names: Sequence[str]) -> list[int] | None:
        """`get_batch`: device addresses in the order of `names`, None at the end or after an error."""
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
            with contextlib.suppress(Exception):  # the error that came first is the one that is told
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
        """The first batch, whose shapes are those of the calibration; it is not read twice. DataError."""
        if self._first is None:
            self._portions = self._open()
            self._first = next(self._portions, None)
            if self._first is None:
                raise DataError("the data yields no samples", remedy="give at least one sample")
        return self._first

    def read(self) -> bytes | None:
        """`read_calibration_cache`."""
        return self._there

    def write(self, table: bytes) -> None:
        """`write_calibration_cache`: kept only from a whole run; may come again after a table was read."""
        if self._error is None and (self._ended or self._there is not None):
            self._written = table
        elif self._error is None:
            self._error = BackendError(
                f"TensorRT wrote a table after {self.seen.taken} batches, before the data was through",
                remedy="calibrate again",
            )

    def fail(self, error: BaseException) -> None:
        """Something else went wrong in a callback."""
        self._error = self._error or error

    def outcome(self) -> CalibratorOutcome:
        """After the build. Raises what went wrong in a callback; BackendError where TensorRT made no table."""
        self.close()
        if self._error is not None:
            raise self._error
        if self._there is not None:
            if self.calls:
                raise BackendError(
                    f"TensorRT did not take the table: it asked for {self.calls} batches",
                    remedy="the header has to name this TensorRT and this calibrator (quantkit table convert)",
                )
            return CalibratorOutcome(self._there, 0, self.seen, True)
        if self._written is None:
            raise BackendError(
                "TensorRT made no calibration table", remedy="look at its errors above; the builder needs the INT8 flag"
            )
        return CalibratorOutcome(self._written, self.calls, self.seen, False)

    def close(self) -> None:
        """Give the GPU's memory back."""
        self._finish()

    def _finish(self) -> None:
        with self._lock:  # whoever comes second waits until all is closed
            staging, self._staging = self._staging, None
            if staging is not None:
                staging.close()
            close = getattr(self._portions, "close", None)
            if close is not None:
                close()
