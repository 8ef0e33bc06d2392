"""A GPU for onnxruntime and CuPy that is this process: memory is host memory, kernels are `counting.cu` as C++.

onnxruntime runs on its CPU provider, under the name of the CUDA provider; what is bound on the GPU is bound on the
host.
"""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from quantkit.backends.onnxruntime import inference
from quantkit.gpu_counting import cupy_device
from tests.gpu_counting.twin import HostMemory, TwinDevice

CUDA = "CUDAExecutionProvider"


class FakeArray:
    """As much of `cupy.ndarray` as is used, for bytes."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.array = array
        self.data = SimpleNamespace(ptr=array.ctypes.data)

    def __getitem__(self, where: slice) -> FakeArray:
        return FakeArray(self.array[where])

    def set(self, values: np.ndarray[Any, Any]) -> None:
        assert values.shape == self.array.shape
        assert values.dtype == self.array.dtype
        self.array[...] = values

    def get(self, stream: object) -> np.ndarray[Any, Any]:
        assert stream is not None
        return self.array.copy()


class Entered:
    """A device or a stream."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __enter__(self) -> Entered:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def synchronize(self) -> None:
        pass


class FakeModule:
    """A compiled module."""

    def __init__(self, code: str, options: tuple[str, ...]) -> None:
        assert "extern" in code
        assert options

    def get_function(self, name: str) -> Any:
        def start(grid: tuple[int], block: tuple[int], values: tuple[Any, ...]) -> None:
            assert block == (256,)
            pointers = [int(v) if v.dtype == np.int64 else HostMemory.at(int(v)) for v in values]
            TwinDevice().launch(name, grid[0], *pointers)

        return start


class HostBinding:
    """A binding that takes the host for the GPU."""

    def __init__(self, binding: Any, log: list[str]) -> None:
        self._binding, self._log = binding, log

    def bind_input(self, name: str, device: str, index: int, dtype: Any, shape: Any, pointer: int) -> None:
        assert device == "cuda"
        self._log.append(f"input {name} on GPU {index}")
        self._binding.bind_input(name, "cpu", 0, dtype, shape, pointer)

    def bind_output(self, name: str, device: str, index: int) -> None:
        assert device == "cuda"
        self._log.append(f"output {name} on GPU {index}")
        self._binding.bind_output(name, "cpu", 0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._binding, name)


class HostSession:
    """A session that says that it runs on CUDA."""

    def __init__(self, session: Any, providers: tuple[str, ...], log: list[str]) -> None:
        self._session, self._providers, self.log = session, providers, log

    def get_providers(self) -> list[str]:
        return [*self._providers, "CPUExecutionProvider"]

    def run_with_iobinding(self, binding: HostBinding, options: Any = None) -> None:
        self._session.run_with_iobinding(binding._binding, options)

    def io_binding(self) -> HostBinding:
        return HostBinding(self._session.io_binding(), self.log)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


def install_fake_cuda(patch: pytest.MonkeyPatch, *, starts: bool = True) -> list[Any]:
    """Install the GPU; return a list to which every opened session is added. starts: the CUDA provider can start."""
    opened: list[Any] = []
    original = onnxruntime.InferenceSession

    def open_session(model: bytes, options: Any, providers: list[Any], disabled_optimizers: list[str]) -> Any:
        if providers[0] == "CPUExecutionProvider":
            return original(model, options, providers=providers, disabled_optimizers=disabled_optimizers)
        assert providers[0][0] == CUDA
        session = HostSession(original(model, options, providers=providers[1:]), (CUDA,) if starts else (), [])
        session.given = providers[0][1]  # type: ignore[attr-defined]
        opened.append(session)
        return session

    module = ModuleType("cupy")
    module.empty = lambda size, dtype: FakeArray(np.full(size, 99, dtype))  # type: ignore[attr-defined]
    module.zeros = lambda size, dtype: FakeArray(np.zeros(size, dtype))  # type: ignore[attr-defined]
    module.RawModule = FakeModule  # type: ignore[attr-defined]
    module.cuda = SimpleNamespace(Device=Entered, Stream=Entered)  # type: ignore[attr-defined]
    cupy_device.compiled_kernels.cache_clear()
    patch.setitem(sys.modules, "cupy", module)
    patch.setattr(cupy_device, "refuse_without_cupy", lambda: None)
    patch.setattr(onnxruntime, "InferenceSession", open_session)
    patch.setattr(inference, "available_providers", lambda: ("cpu", "cuda"))
    return opened
