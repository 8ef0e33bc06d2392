"""Sessions of onnxruntime that show any tensor of a network without changing its numbers.

The watched tensors become outputs of a copy of the graph. An output has to be computed as the file defines it, so that
no optimization of onnxruntime can fuse it away; the numbers are those of plain onnxruntime to the last bits of float32.
Each thread has its own binding, whose output buffers are allocated once where shapes cannot change.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import onnxruntime

from quantkit.backends.onnxruntime.gpu_runner import (
    GpuRunner,
    gpu_options,
    load_cuda_libraries,
    missing_library,
    note_operators_on_cpu,
)
from quantkit.backends.onnxruntime.stoppable import SILENT, from_onnxruntime, run_stoppably
from quantkit.backends.session import Runner, split_provider
from quantkit.errors import BackendError, ModelError, first_line
from quantkit.extras import gpu_command
from quantkit.graph.identity import external_files
from quantkit.graph.load import refuse_changed_weights
from quantkit.graph.messages import all_tensors
from quantkit.graph.model import Model
from quantkit.graph.shape_inference import FP8
from quantkit.regular_file import readable_name
from quantkit.values import Array, Batch

PROVIDERS: Mapping[str, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
}
FLOATS = frozenset({"tensor(float)", "tensor(float16)", "tensor(double)"})
WRONG_IN_FP8 = ("ReluQuantRewrite", "ClipQuantRewrite")
"""Optimizations that do not know FP8. The first removes every Relu before a QuantizeLinear with zero point 0, as if the
type had no negative values (onnxruntime 1.32: resnet20 falls from 32.5 dB to −1.7); the second fails on a Clip."""
EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"


class OnnxRuntimeSession:
    """A session of onnxruntime that watches `tensors`, graph outputs included, inputs excluded.

    any_type: watch tensors that are not float, too; otherwise they are left out of `tensors`. once: for one run:
    weights are not copied into an order that is faster, which takes twice their memory.
    """

    def __init__(
        self,
        model: Model,
        tensors: Sequence[str],
        *,
        provider: str = "cpu",
        threads: int = 1,
        fixed_shapes: bool = False,
        any_type: bool = False,
        once: bool = False,
    ) -> None:
        self._session = open_inference_session(with_outputs(model, tensors), model, provider, threads, once=once)
        refuse_changed_weights(model)
        shown = {value.name for value in self._session.get_outputs() if any_type or value.type in FLOATS}
        self.tensors = tuple(name for name in tensors if name in shown)
        self._fixed, (name, self._index) = fixed_shapes, split_provider(provider)
        self._on_gpu = name == "cuda"
        self.notes = note_operators_on_cpu(self._session, model, self.tensors) if self._on_gpu else ()

    def runner(self) -> Runner:
        """Return a runner for one thread."""
        if self._fixed and self.tensors and not self._on_gpu:
            return BoundRunner(self._session, self.tensors)
        return PlainRunner(self._session, self.tensors)

    def resident(self) -> GpuRunner | None:
        """Return a runner for one thread that leaves its tensors on the GPU; None on the CPU. BackendError."""
        if not self._on_gpu:
            return None
        return GpuRunner(self._session, self.tensors, self._index, fixed_shapes=self._fixed)


class PlainRunner:
    """A runner that lets onnxruntime allocate the outputs, whose shapes may change from run to run."""

    def __init__(self, session: Any, tensors: tuple[str, ...]) -> None:
        self._session, self._tensors = session, tensors

    def __call__(self, feeds: Batch) -> Mapping[str, Array]:
        """Run once. ModelError."""
        if not self._tensors:
            return {}
        outputs = run_stoppably(lambda options: self._session.run(self._tensors, dict(feeds), options))
        return dict(zip(self._tensors, outputs, strict=True))


class BoundRunner:
    """A runner that writes the outputs into buffers, which stay in place while the inputs keep their shapes."""

    def __init__(self, session: Any, tensors: tuple[str, ...]) -> None:
        self._session, self._tensors = session, tensors
        self._plain = PlainRunner(session, tensors)
        self._shapes: dict[str, tuple[int, ...]] | None = None
        self._buffers: Mapping[str, Array] = {}
        self._binding: Any = None

    def __call__(self, feeds: Batch) -> Mapping[str, Array]:
        """Run once; the first run with new shapes allocates the buffers. ModelError."""
        shapes = {name: array.shape for name, array in feeds.items()}
        if shapes != self._shapes:
            self._buffers = self._plain(feeds)
            self._binding = self._session.io_binding()
            for name, buffer in self._buffers.items():
                self._binding.bind_output(name, "cpu", 0, buffer.dtype, buffer.shape, buffer.ctypes.data)
            self._shapes = shapes
            return self._buffers
        for name, array in feeds.items():
            self._binding.bind_cpu_input(name, array)
        run_stoppably(lambda options: self._session.run_with_iobinding(self._binding, options))
        return self._buffers


def with_outputs(model: Model, tensors: Sequence[str]) -> bytes:
    """Return the serialized model with `tensors` added to its outputs; the model itself does not change."""
    proto = model.proto
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for value in copy.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")  # a file may declare a wrong rank, which no buffer then fits
    there = {value.name for value in (*copy.graph.output, *copy.graph.input)}
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name not in there)
    root = root_of(model) if external_files(proto) else ""
    for weight in all_tensors(copy) if root else ():
        for entry in weight.external_data:
            if entry.key == "location":
                # onnxruntime reads files below one folder only, and a link may lead out of the model's folder
                entry.value = os.path.relpath(os.path.realpath(model.folder / entry.value), root)
    serialized: bytes = copy.SerializeToString()
    return serialized


def root_of(model: Model) -> str:
    """Return the folder below which all external weights of a model lie, links followed."""
    places = {os.path.realpath(model.folder / name) for name in external_files(model.proto)}
    return os.path.commonpath([os.path.dirname(place) for place in places]) if places else str(model.folder)


def utf8_root(model: Model) -> str:
    """Return the folder below which all external weights lie. ModelError if onnxruntime cannot take its name."""
    root = root_of(model)
    if not root.isascii() and readable_name(root) != root:
        raise ModelError(
            f"the folder {root} holds weights of {model.path.name}, and its name is not UTF-8, which onnxruntime needs",
            remedy="rename the folder",
        )
    return root


def available_providers() -> tuple[str, ...]:
    """Return those of `PROVIDERS` that this onnxruntime was built with."""
    return tuple(name for name, full in PROVIDERS.items() if full in onnxruntime.get_available_providers())


def open_inference_session(serialized: bytes, model: Model, provider: str, threads: int, *, once: bool = False) -> Any:
    """Open onnxruntime's own session. ModelError, BackendError. once: as for `OnnxRuntimeSession`."""
    there, (name, index) = available_providers(), split_provider(provider)
    if name not in there:
        raise BackendError(
            f"onnxruntime has no provider {name!r} here; it has {', '.join(there)}",
            remedy=f"{gpu_command()}, or use --provider cpu",
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = SILENT
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if external_files(model.proto):
        options.add_session_config_entry(EXTERNAL_FOLDER, utf8_root(model))
    # Q and DQ are computed as the file defines them: onnxruntime's INT8 kernels saturate sums on CPUs without VNNI.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    if once:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.add_session_config_entry("session.disable_prepacking", "1")
    providers: list[Any] = ["CPUExecutionProvider"]
    if name == "cuda":
        load_cuda_libraries()
        options.use_deterministic_compute = True
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        providers.insert(0, (PROVIDERS[name], gpu_options(index)))
    disabled = WRONG_IN_FP8 if any(tensor.data_type == FP8 for tensor in all_tensors(model.proto)) else ()
    try:
        session = onnxruntime.InferenceSession(
            serialized, options, providers=providers, disabled_optimizers=list(disabled)
        )
    except Exception as error:
        if not from_onnxruntime(error):
            raise
        raise ModelError(
            f"onnxruntime cannot load {model.path}: {first_line(error)}",
            remedy="check the model with onnx.checker; remove operators that belong to other runtimes",
        ) from None
    if PROVIDERS[name] not in session.get_providers():
        raise BackendError(
            f"onnxruntime could not start its provider {name!r} and would use the CPU{missing_library()}",
            remedy="install the CUDA libraries that this onnxruntime needs, or use --provider cpu",
        )
    return session
