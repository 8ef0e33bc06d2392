"""A GPU through CuPy: memory, copies and launches on a stream of one thread."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from quantkit.errors import BackendError, first_line
from quantkit.extras import install_command
from quantkit.gpu_counting.launches import Memory, kernel_source
from quantkit.gpu_counting.tables import THREADS
from quantkit.values import Array


class CupyMemory:
    """A piece of CuPy's pool."""

    __slots__ = ("array", "pointer")

    def __init__(self, array: Any) -> None:
        self.array, self.pointer = array, int(array.data.ptr)


@cache
def compiled_kernels(index: int) -> Any:
    """Return the kernels, compiled for GPU `index`, which is the current one."""
    import cupy

    del index  # a module belongs to the GPU on which it was made
    return cupy.RawModule(code=kernel_source(), options=("-std=c++17",))


def refuse_without_cupy() -> None:
    """Raise BackendError where CuPy is not installed."""
    if find_spec("cupy") is None:
        raise BackendError(
            "--provider cuda counts on the GPU with CuPy, which is not installed",
            remedy=f"{install_command('ort-cuda', 'cupy')} (cupy-cuda12x for CUDA 12), or use --provider cpu",
        )


class CupyDevice:
    """GPU `index` in the hands of one thread. BackendError where it cannot be used."""

    def __init__(self, index: int = 0) -> None:
        refuse_without_cupy()
        try:
            import cupy

            self._cupy, self._gpu = cupy, cupy.cuda.Device(index)
            with self._gpu:
                self._stream = cupy.cuda.Stream(non_blocking=True)
                self._kernels = compiled_kernels(index)
        except Exception as error:  # no driver, no such GPU, CUDA libraries of another version
            raise BackendError(
                f"CuPy cannot use GPU {index}: {first_line(error)}",
                remedy="install the CuPy of the installed CUDA version, or use --provider cpu",
            ) from error

    def copy_in(self, array: Array) -> CupyMemory:
        """Return a copy of an array on the GPU."""
        memory = self.allocate(array.nbytes)
        self.copy_over(memory, array)
        return memory

    def copy_over(self, memory: CupyMemory, array: Array) -> None:
        """Copy an array into memory of its size."""
        if array.nbytes:
            with self._gpu, self._stream:
                memory.array.set(np.ascontiguousarray(array).reshape(-1).view(np.uint8))

    def allocate(self, size: int, *, zeros: bool = False) -> CupyMemory:
        """Return `size` bytes. BackendError."""
        make = self._cupy.zeros if zeros else self._cupy.empty
        try:
            with self._gpu, self._stream:
                return CupyMemory(make(size, np.uint8))
        except MemoryError as error:
            raise BackendError(
                f"the GPU has no {size:,} bytes left: {first_line(error)}", remedy="lower --max-memory"
            ) from error

    def launch(self, kernel: str, blocks: int, *arguments: Memory | int) -> None:
        """Start a kernel."""
        values = tuple(np.int64(a) if isinstance(a, int) else np.uint64(a.pointer) for a in arguments)
        with self._gpu, self._stream:
            self._kernels.get_function(kernel)((blocks,), (THREADS,), values)

    def copy_out(self, memory: Memory, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
        """Wait for the launches, and return the beginning of a piece of memory."""
        assert isinstance(memory, CupyMemory)
        size = dtype.itemsize * int(np.prod(shape))
        with self._gpu, self._stream:
            found: Array = memory.array[:size].get(stream=self._stream)
        return found.view(dtype).reshape(shape)

    def wait(self) -> None:
        """Wait for all copies and launches."""
        self._stream.synchronize()
