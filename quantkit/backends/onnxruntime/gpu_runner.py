"""A runner of onnxruntime's CUDA provider whose inputs and outputs stay on the GPU.

Inputs are copied there once. onnxruntime allocates the outputs at the first run, and writes them to the same places as
long as no shape changes. A run has ended when onnxruntime returns, so that kernels of other streams may read them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import redirect_stdout
from ctypes import CDLL
from io import StringIO
from pathlib import Path
from typing import Any

from quantkit.backends.onnxruntime.stoppable import SILENT, run_stoppably
from quantkit.errors import first_line
from quantkit.gpu_counting.cupy_device import CupyDevice, CupyMemory
from quantkit.gpu_counting.tables import TYPES, DeviceTensor
from quantkit.graph.model import Model
from quantkit.values import Array, Batch

ONNX_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}


class GpuRunner:
    """One thread's binding of a session. BackendError where CuPy or the GPU cannot be used."""

    def __init__(self, session: Any, tensors: tuple[str, ...], index: int, *, fixed_shapes: bool) -> None:
        self.device = CupyDevice(index)
        self._session, self._tensors, self._index, self._fixed = session, tensors, index, fixed_shapes
        self._binding = session.io_binding()
        self._inputs: dict[str, tuple[CupyMemory, Array]] = {}
        self._outputs: dict[str, Any] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._found: dict[str, DeviceTensor] = {}

    def __call__(self, feeds: Batch) -> Mapping[str, DeviceTensor]:
        """Run once. ModelError, BackendError."""
        shapes = {name: array.shape for name, array in feeds.items()}
        same = shapes == self._shapes
        for name, array in feeds.items():
            self._feed(name, array, same=same)
        self.device.wait()
        if not (same and self._fixed):
            self._outputs = {}  # frees the memory before other shapes take theirs
            self._binding.clear_binding_outputs()
            for name in self._tensors:
                self._binding.bind_output(name, "cuda", self._index)
        if self._tensors:
            run_stoppably(lambda options: self._session.run_with_iobinding(self._binding, options))
        if not (same and self._fixed):
            self._shapes = shapes
            self._outputs = dict(zip(self._tensors, self._binding.get_outputs(), strict=True))
            self._found = {**self._float_inputs(), **{n: as_tensor(v) for n, v in self._outputs.items()}}
        return self._found

    def fetch(self, name: str) -> Array:
        """Return a tensor of the last run as an array."""
        if name in self._outputs:
            found: Array = self._outputs[name].numpy()
            return found
        return self._inputs[name][1]

    def _feed(self, name: str, array: Array, *, same: bool) -> None:
        if array.dtype.kind not in "fiub":
            self._binding.bind_cpu_input(name, array)
            return
        if not same:
            memory = self.device.allocate(array.nbytes)
            self._binding.bind_input(name, "cuda", self._index, array.dtype.type, array.shape, memory.pointer)
        else:
            memory = self._inputs[name][0]
        self.device.copy_over(memory, array)
        self._inputs[name] = memory, array

    def _float_inputs(self) -> dict[str, DeviceTensor]:
        return {
            name: DeviceTensor(memory.pointer, array.shape, array.dtype.name)
            for name, (memory, array) in self._inputs.items()
            if array.dtype.name in TYPES
        }


def as_tensor(value: Any) -> DeviceTensor:
    """Return where an output of onnxruntime lies."""
    return DeviceTensor(value.data_ptr(), tuple(value.shape()), ONNX_TYPES[value.data_type()])


def load_cuda_libraries() -> None:
    """Load the CUDA libraries that pip has installed beside onnxruntime, where there are any."""
    import onnxruntime

    # What is missing is printed and logged here, beside what does not matter; opening a session says what does.
    onnxruntime.set_default_logger_severity(SILENT)
    if hasattr(onnxruntime, "preload_dlls"):
        with redirect_stdout(StringIO()):
            onnxruntime.preload_dlls()


def missing_library() -> str:
    """Return why the CUDA provider cannot be loaded, as the end of a sentence; empty if that is not known."""
    import onnxruntime

    try:
        CDLL(str(Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"))
    except OSError as error:
        text = first_line(error)
        return "" if "undefined symbol" in text else f": {text}"
    return ""


def note_operators_on_cpu(session: Any, model: Model, tensors: Collection[str]) -> tuple[str, ...]:
    """Return a note about the operators that compute `tensors` on the CPU; empty if there are none, or not known.

    onnxruntime computes shapes on the CPU on purpose; such operators are not meant.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return ()
    watched = {(node.name, node.op_type) for node in model.proto.graph.node if not set(node.output).isdisjoint(tensors)}
    placed = session.get_provider_graph_assignment_info()
    found = [n.op_type for part in placed if part.ep_name == "CPUExecutionProvider" for n in part.get_nodes()
             if (n.name, n.op_type) in watched]  # fmt: skip
    if not found:
        return ()
    operators = "1 operator runs" if len(found) == 1 else f"{len(found)} operators run"
    return (
        f"{operators} on the CPU, which onnxruntime's CUDA provider does not have: {', '.join(sorted(set(found)))}",
    )


def gpu_options(index: int) -> dict[str, str]:
    """Return the options of the CUDA provider.

    TF32 would move values by 2^-11; calibration is about the float32 network. Algorithms of cuDNN are chosen by its
    heuristic, because a search by time may choose another one in every process, and with it other last bits. Memory
    grows by what is asked for, not by powers of two.
    """
    return {
        "device_id": str(index),
        "use_tf32": "0",
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
    }
