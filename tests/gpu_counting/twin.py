"""The kernels of `counting.cu` without a GPU: the same text, compiled as C++, with a thread for every GPU thread."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from quantkit.gpu_counting.launches import Launcher, Memory, kernel_source
from quantkit.gpu_counting.tables import DeviceTensor
from quantkit.values import Array

HERE = Path(__file__).parent


class HostMemory:
    """An array that stands for a piece of a device's memory."""

    def __init__(self, array: Array) -> None:
        self.array, self.pointer = array, array.ctypes.data


@cache
def compiled_kernels() -> ctypes.CDLL:
    """Return the kernels as functions of this process; skips where no compiler knows C++20."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    folder = Path(tempfile.mkdtemp(prefix="quantkit-kernels-"))
    try:
        text = "\n".join((read("threads_as_gpu.h"), kernel_source(), read("launch.h")))
        (folder / "kernels.cpp").write_text(text)
        command = [
            compiler,
            "-std=c++20",
            "-O2",
            "-w",
            "-shared",
            "-fPIC",
            "-pthread",
            "-o",
            "kernels.so",
            "kernels.cpp",
        ]
        made = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if made.returncode and "std=c++20" in made.stderr:
            pytest.skip("the C++ compiler knows no C++20")
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

    def zeros(self, size: int) -> HostMemory:
        return HostMemory(np.zeros(size, np.uint8))

    def launch(self, kernel: str, blocks: int, *arguments: Memory | int) -> None:
        values = [ctypes.c_int64(a) if isinstance(a, int) else ctypes.c_void_p(a.pointer) for a in arguments]
        self.launches.append(kernel)
        getattr(self._kernels, f"run_{kernel}")(blocks, *values)

    def copy_out(self, memory: Memory, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
        assert isinstance(memory, HostMemory)
        size = dtype.itemsize * int(np.prod(shape))
        return memory.array.reshape(-1).view(np.uint8)[:size].view(dtype).reshape(shape).copy()


def twin_launcher() -> Launcher:
    return Launcher(TwinDevice())


def as_device_tensor(array: Array) -> DeviceTensor:
    assert array.flags.c_contiguous
    return DeviceTensor(array.ctypes.data, array.shape, str(array.dtype), array)
