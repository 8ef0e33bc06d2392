"""The kernels of `counting.cu` without a GPU: the same text, compiled as C++, one GPU thread after the other."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
import threading
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from quantkit.gpu_counting.launches import Launcher, Memory, kernel_source
from quantkit.gpu_counting.tables import DeviceTensor
from quantkit.values import Array

HERE = Path(__file__).parent
ONE_LAUNCH = threading.Lock()
"""The blocks of all devices share one piece of memory."""


class HostMemory:
    """An array that stands for a piece of a device's memory."""

    def __init__(self, array: Array, pointer: int | None = None) -> None:
        self.array, self.pointer = array, array.ctypes.data if pointer is None else pointer

    @classmethod
    def at(cls, pointer: int) -> HostMemory:
        """Memory that somebody else holds."""
        return cls(np.zeros(0, np.uint8), pointer)


@cache
def compiled_kernels() -> ctypes.CDLL:
    """Return the kernels as functions of this process; skips where there is no compiler."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    folder = Path(tempfile.mkdtemp(prefix="quantkit-kernels-"))
    try:
        text = "\n".join((read("threads_as_gpu.h"), kernel_source(), read("launch.h")))
        (folder / "kernels.cpp").write_text(text)
        options = "-std=c++17 -O2 -w -shared -fPIC -o kernels.so kernels.cpp"
        command = [compiler, *options.split()]
        made = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if "ucontext" in made.stderr:
            pytest.skip("the C library has no ucontext.h")
        assert not made.returncode, made.stderr
        return ctypes.CDLL(str(folder / "kernels.so"))
    finally:
        shutil.rmtree(folder)


def read(name: str) -> str:
    return (HERE / name).read_text("utf-8")


class TwinDevice:
    """A device whose memory is this process's."""

    def __init__(self) -> None:
        self._kernels = compiled_kernels()
        self.launches: list[str] = []

    def copy_in(self, array: Array) -> HostMemory:
        return HostMemory(np.ascontiguousarray(array).copy())

    def allocate(self, size: int, *, zeros: bool = False) -> HostMemory:
        return HostMemory(np.full(size, 0 if zeros else 77, np.uint8))

    def launch(self, kernel: str, blocks: int, *arguments: Memory | int) -> None:
        values = [ctypes.c_int64(a) if isinstance(a, int) else ctypes.c_void_p(a.pointer) for a in arguments]
        self.launches.append(kernel)
        with ONE_LAUNCH:
            getattr(self._kernels, f"run_{kernel}")(blocks, *values)

    def copy_out(self, memory: Memory, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
        assert isinstance(memory, HostMemory)
        size = dtype.itemsize * int(np.prod(shape))
        return memory.array.reshape(-1).view(np.uint8)[:size].view(dtype).reshape(shape).copy()


def twin_launcher() -> Launcher:
    return Launcher(TwinDevice())


def as_device_tensor(array: Array) -> DeviceTensor:
    assert array.flags.c_contiguous
    return DeviceTensor(array.ctypes.data, array.shape, str(array.dtype))
