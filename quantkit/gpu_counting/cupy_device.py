"""A GPU through CuPy: memory, copies and launches on a stream of one thread."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from quantkit.gpu_counting.launches import Memory, kernel_source
from quantkit.gpu_counting.tables import THREADS
from quantkit.values import Array


class CupyMemory:
    """Memory of CuPy's pool."""

    __slots__ = ("array", "pointer")

    def __init__(self, array: Any) -> None:
        self.array, self.pointer = array, int(array.data.ptr)


@cache
def compiled_module(index: int) -> Any:
    """Return the kernels, compiled for GPU `index`, which is the current one."""
    import cupy

    del index  # a module belongs to the GPU on which it was made
    return cupy.RawModule(code=kernel_source(), options=("-std=c++17",))


class CupyDevice:
    """GPU `index` in the hands of one thread."""

    def __init__(self, index: int = 0) -> None:
        import cupy

        self._cupy, self._gpu = cupy, cupy.cuda.Device(index)
        with self._gpu:
            self._stream = cupy.cuda.Stream(non_blocking=True)
            self._module = compiled_module(index)

    def copy_in(self, array: Array) -> CupyMemory:
        """Return a copy of an array on the GPU."""
        with self._gpu, self._stream:
            memory = self._cupy.empty(max(array.nbytes, 1), np.uint8)
            if array.nbytes:
                memory[: array.nbytes].set(np.ascontiguousarray(array).view(np.uint8).reshape(-1))
            return CupyMemory(memory)

    def zeros(self, size: int) -> CupyMemory:
        """Return `size` bytes of zeros."""
        with self._gpu, self._stream:
            return CupyMemory(self._cupy.zeros(max(size, 1), np.uint8))

    def launch(self, kernel: str, blocks: int, *arguments: Memory | int) -> None:
        """Start a kernel."""
        values = tuple(np.int64(a) if isinstance(a, int) else np.uint64(a.pointer) for a in arguments)
        with self._gpu, self._stream:
            self._module.get_function(kernel)((blocks,), (THREADS,), values)

    def copy_out(self, memory: Memory, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
        """Wait for the launches, and return the beginning of a piece of memory."""
        assert isinstance(memory, CupyMemory)
        size = dtype.itemsize * int(np.prod(shape))
        with self._gpu, self._stream:
            found: Array = memory.array[:size].get(stream=self._stream)
        return found.view(dtype).reshape(shape)
