"""The GPU through pycuda, in its primary context: the one that the CUDA runtime, TensorRT and torch share.

A context is made current around each use and popped after it (`with device.current():`), in any thread, so that the
rest of the process keeps its own context. `pycuda.autoinit` does neither. An object of one thread may be freed in
another only while the context is current there; therefore every class here has a `free()`.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

from quantkit.errors import BackendError
from quantkit.extras import install_command
from quantkit.values import Array

NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING: does not wait for work on the default stream."""
THREAD_LOCAL = 1
"""CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: only unsafe calls of this thread end a capture."""


def driver() -> Any:
    """Return the module `pycuda.driver`, initialised. BackendError where pycuda, the driver or a GPU is missing."""
    try:
        cuda = importlib.import_module("pycuda.driver")
    except ModuleNotFoundError as error:
        if error.name not in ("pycuda", "pycuda.driver"):
            raise
        raise BackendError("pycuda is not installed", remedy=install_command("cuda")) from None
    except ImportError as error:
        raise BackendError(
            f"pycuda does not load: {error}",
            remedy="install the NVIDIA driver (libcuda.so.1); without a GPU use --backend onnxruntime",
        ) from None
    try:
        cuda.init()
        count = cuda.Device.count()
    except cuda.Error as error:
        raise BackendError(f"no GPU can be used: {first_sentence(error)}", remedy=driver_remedy(str(error))) from None
    if count == 0:
        raise BackendError("there is no GPU", remedy="use --backend onnxruntime, which needs none")
    return cuda


def driver_remedy(message: str) -> str:
    """Return the remedy for a driver that does not start."""
    if re.search("insufficient|system driver mismatch|forward compat", message):
        return "update the NVIDIA driver: it is older than this CUDA"
    return "check the driver with nvidia-smi; without a GPU use --backend onnxruntime"


def first_sentence(error: Exception) -> str:
    """Return the first line of an error: `cuInit failed: no CUDA-capable device is detected`."""
    return str(error).strip().splitlines()[0]


@cache
def open_device(number: int = 0) -> GpuDevice:
    """Return the GPU of that number, opened once per process. BackendError."""
    return GpuDevice(number)


class GpuDevice:
    """A GPU. Memory and streams are allocated and freed while its context is current."""

    def __init__(self, number: int = 0) -> None:
        self._cuda = driver()
        if not 0 <= number < self._cuda.Device.count():
            raise BackendError(f"there is no GPU {number}", remedy=f"give 0 … {self._cuda.Device.count() - 1}")
        gpu = self._cuda.Device(number)
        self.number = number
        self.name: str = gpu.name()
        self.capability: tuple[int, int] = gpu.compute_capability()
        self.driver_version: int = self._cuda.get_driver_version()
        self._context = gpu.retain_primary_context()

    @property
    def slug(self) -> str:
        """The name in the form for file names: `nvidia-h200`."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    @property
    def has_int8(self) -> bool:
        """True if the GPU has integer dot products (compute capability 6.1, CUDA programming guide)."""
        return self.capability >= (6, 1)

    @property
    def has_tf32(self) -> bool:
        """True if the GPU has TF32 (compute capability 8.0)."""
        return self.capability >= (8, 0)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current in this thread, and restore the thread's context afterwards."""
        self._context.push()
        try:
            yield
        finally:
            self._cuda.Context.pop()

    def memory(self) -> tuple[int, int]:
        """Return free and total bytes."""
        with self.current():
            free, total = self._cuda.mem_get_info()
        return int(free), int(total)

    def pinned(self, count: int) -> Array:
        """Return page-locked host memory, uint8 [count]; freed with the last array that views it."""
        import numpy as np

        array: Array = self._cuda.pagelocked_empty(max(count, 1), np.uint8)
        return array

    def buffer(self, count: int) -> Buffer:
        """Allocate device memory. BackendError where there is not enough."""
        try:
            return Buffer(self._cuda, self._cuda.mem_alloc(max(count, 1)), count)
        except self._cuda.MemoryError:
            free, total = self._cuda.mem_get_info()
            raise BackendError(
                f"the GPU has no {count / 2**20:,.0f} MiB left ({free / 2**20:,.0f} of {total / 2**20:,.0f} MiB free)",
                remedy="use a smaller --batch-size, or stop other programs on the GPU",
            ) from None

    def stream(self) -> Stream:
        """Create a stream."""
        return Stream(self._cuda)


class Buffer:
    """Device memory. `address` is passed to TensorRT."""

    def __init__(self, cuda: Any, allocation: Any, size: int) -> None:
        self._cuda, self._allocation = cuda, allocation
        self.address = int(allocation)
        self.size = size

    def free(self) -> None:
        """Free it; the context must be current."""
        self._allocation.free()


class Event:
    """A point in the work of a stream."""

    def __init__(self, cuda: Any) -> None:
        self._event = cuda.Event()

    def record(self, stream: Stream) -> Event:
        """Record the event at this point of a stream."""
        self._event.record(stream.raw)
        return self

    def wait(self) -> None:
        """Wait on the host until the stream reaches the event."""
        self._event.synchronize()

    def free(self) -> None:
        """Free it; the context must be current."""
        self._event = None

    def since(self, earlier: Event) -> float:
        """Return the milliseconds of device time since another event."""
        return float(self._event.time_since(earlier._event))


class Stream:
    """A queue of work that the GPU does in order."""

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self.raw = cuda.Stream(NON_BLOCKING)

    @property
    def handle(self) -> int:
        """The CUstream, as TensorRT takes it."""
        return int(self.raw.handle)

    def upload(self, buffer: Buffer, array: Array) -> None:
        """Copy pinned host memory to the device, asynchronously."""
        self._cuda.memcpy_htod_async(buffer.address, array, self.raw)

    def download(self, array: Array, buffer: Buffer) -> None:
        """Copy device memory to pinned host memory, asynchronously."""
        self._cuda.memcpy_dtoh_async(array, buffer.address, self.raw)

    def fill(self, buffer: Buffer) -> None:
        """Fill a buffer with zeros, asynchronously: work for the GPU that does not depend on the host."""
        self._cuda.memset_d8_async(buffer.address, 0, buffer.size, self.raw)

    def event(self) -> Event:
        """Record an event."""
        return Event(self._cuda).record(self)

    def synchronize(self) -> None:
        """Wait until all work is done."""
        self.raw.synchronize()

    def free(self) -> None:
        """Free it; the context must be current."""
        self.raw = None

    def capture(self, work: Callable[[], None]) -> Graph:
        """Capture what `work` enqueues here as a CUDA graph. BackendError where it cannot be captured."""
        library = graph_library()
        stream, graph = ctypes.c_void_p(self.handle), ctypes.c_void_p()
        check_driver_call("cuStreamBeginCapture", library.cuStreamBeginCapture_v2(stream, THREAD_LOCAL))
        try:
            work()
        finally:
            code = library.cuStreamEndCapture(stream, ctypes.byref(graph))
        check_driver_call("cuStreamEndCapture", code)
        try:
            return Graph(library, graph)
        finally:
            library.cuGraphDestroy(graph)


class Graph:
    """Captured work, launched with one call."""

    def __init__(self, library: Any, graph: Any) -> None:
        self._library, self._executable = library, ctypes.c_void_p()
        code = library.cuGraphInstantiateWithFlags(ctypes.byref(self._executable), graph, ctypes.c_ulonglong(0))
        check_driver_call("cuGraphInstantiate", code)

    def launch(self, stream: Stream) -> None:
        """Enqueue the graph."""
        check_driver_call(
            "cuGraphLaunch", self._library.cuGraphLaunch(self._executable, ctypes.c_void_p(stream.handle))
        )

    def free(self) -> None:
        """Free it; the context must be current."""
        self._library.cuGraphExecDestroy(self._executable)


@cache
def graph_library() -> Any:
    """Return the driver's library, because pycuda has no graphs. BackendError if the driver is older than CUDA 11.4."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
        _ = library.cuGraphInstantiateWithFlags
    except (OSError, AttributeError):
        raise BackendError(
            "this driver has no CUDA graphs", remedy="leave out CUDA graphs, or update the driver to CUDA 11.4 or newer"
        ) from None
    return library


def check_driver_call(call: str, code: int) -> None:
    """Raise BackendError where a call to the driver failed."""
    if code:
        raise BackendError(f"{call} failed with CUDA error {code}", remedy="leave out CUDA graphs")


def free_all(items: Sequence[Buffer | Graph | Event | None]) -> None:
    """Free every item that is not None."""
    for item in items:
        if item is not None:
            item.free()
