"""Engines of many branches, built and timed layer by layer with TensorRT.

The profiler's events enclose a gap wherever the GPU waits for the host, which would count more than a small kernel. The
GPU is therefore kept busy with a fill of memory while the host enqueues the whole engine; then all layers run without a
pause. The same engine is timed as a CUDA graph as well: what the layers take together beyond that is the price of the
events, reported as `overhead` a layer.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from quantkit.backends.tensorrt.device import Buffer, GpuDevice, open_device
from quantkit.backends.tensorrt.engine_layers import LayerContext, engine_layers
from quantkit.backends.tensorrt.inspection import engine_document
from quantkit.backends.tensorrt.messages import Messages, capture_messages, make_or_raise
from quantkit.backends.tensorrt.versions import detect_features, network_flags, set_flag, share_profile, tensorrt
from quantkit.errors import BackendError
from quantkit.gpu_profile.attribution import LayerTime, layer_times, quartiles
from quantkit.gpu_profile.branch_writer import weight_pattern

if TYPE_CHECKING:
    import onnx

    from quantkit.values import Array

RUNS = 25
"""Profiled runs of an engine."""
GRAPH_RUNS = 30
FILL = 256 << 20
"""Bytes that are filled while the host enqueues an engine."""
HALF_WIDTH = 2
"""Bytes of a float16."""
ERRORS = 3
"""Errors of TensorRT in the message about a failed build."""
FILLS = 40
"""Fills in front of a run at most: about 2 ms on an H200, 40 ms on a small GPU."""


@dataclass(frozen=True, slots=True)
class MeasuredEngine:
    """The times of one engine. graph: milliseconds of the whole engine as a CUDA graph: quartiles.

    overhead: milliseconds that the profiler adds to each layer.
    """

    layers: tuple[LayerTime, ...]
    graph: tuple[float, float, float]
    overhead: float
    build_seconds: float
    document: dict[str, Any]


class LayerTimer:
    """A GPU with TensorRT on it, ready to measure. Use it with `with`: TensorRT's kernels stay loaded meanwhile."""

    def __init__(self, level: int, device: int = 0) -> None:
        self.level = level
        self._trt: Any = tensorrt()
        self.device: GpuDevice = open_device(device)
        self.version = detect_features(self._trt).version
        self.strong = detect_features(self._trt).always_strong
        """True if networks have to be in FP16 themselves."""
        self._messages = Messages()
        self._cache: Any = None
        self._configs: list[Any] = []
        self._log: Any = None
        self._builder: Any = None
        self._profiler: Any = None
        self._memory: Any = None

    @contextmanager
    def started(self) -> Iterator[LayerTimer]:
        """Keep a builder, and with it TensorRT's kernels, loaded."""
        with capture_messages(self._trt, self._messages) as self._log, self.device.current():
            self._trt.init_libnvinfer_plugins(self._log, "")
            self._builder = make_or_raise(lambda: self._trt.Builder(self._log), self._messages)
            self._profiler = layer_profiler(self._trt)
            self._memory = SharedMemory(self.device)
            try:
                yield self
            finally:
                self._memory.free()
                self._cache = self._builder = None
                self._configs.clear()

    def measure(self, proto: onnx.ModelProto, *, int8: bool, alone: bool = False, runs: int = RUNS) -> MeasuredEngine:
        """Build an engine of a model with fixed shapes, and time its layers. BackendError.

        alone: do not use the times of other engines, because TensorRT compiles the network as a region.
        """
        began = time.monotonic()
        messages = Messages()
        with capture_messages(self._trt, messages):
            plan = self._built(proto, messages, int8=int8, alone=alone)
        seconds = time.monotonic() - began
        runtime = self._trt.Runtime(self._log)
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise BackendError("the engine cannot be read back", remedy="see quantkit doctor")
        run = EngineRun(self._trt, self.device, engine, self._memory)
        try:
            document = engine_document(self._trt, engine, run.context, {})
            graph = quartiles(run.graph_times(GRAPH_RUNS))
            times = run.profile(self._profiler, runs)
        finally:
            run.free()
        kinds = engine_layers(document, LayerContext(operators={}, int8=int8))
        layers = layer_times(document, times, {layer.name: layer.precision for layer in kinds})
        total = sum(layer.milliseconds for layer in layers)
        overhead = max(0.0, total - graph[1]) / max(len(layers), 1)
        return MeasuredEngine(tuple(layers), graph, overhead, seconds, document)

    def _built(self, proto: onnx.ModelProto, messages: Messages, *, int8: bool, alone: bool) -> bytes:
        trt, features = self._trt, detect_features(self._trt)
        network = self._builder.create_network(network_flags(trt, strongly_typed=False))
        parser = trt.OnnxParser(network, self._log)
        if not parser.parse(proto.SerializeToString()):
            raise BackendError(
                f"TensorRT cannot parse a chain: {parser.get_error(0).desc()}", remedy="use another TensorRT"
            )
        if not features.always_strong:
            halve_ends(trt, network, proto)
        config = self._builder.create_builder_config()
        config.builder_optimization_level = self.level
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        if hasattr(config, "max_aux_streams"):
            config.max_aux_streams = 0  # branches side by side would not be timed alone
        share_profile(trt, config)
        if features.precision_flags:
            for flag in ("FP16", "INT8") if int8 else ("FP16",):
                set_flag(trt, config, flag)
            prefer_half(trt, config, network)
        if not alone:
            self._share_times(config)
        memory = self._builder.build_serialized_network(network, config)
        if memory is None:
            errors = "; ".join(messages.errors[:ERRORS]) or "it gives no reason"
            raise BackendError(f"TensorRT cannot build a chain: {errors}", remedy="use another level or version")
        return bytes(memory)

    def _share_times(self, config: Any) -> None:
        if self._cache is None:
            self._cache = config.create_timing_cache(b"")
        config.set_timing_cache(self._cache, ignore_mismatch=True)
        self._configs.append(config)  # the first owns the cache
        del self._configs[1:-1]


def halve_ends(trt: Any, network: Any, proto: onnx.ModelProto) -> None:
    """Let a network read and write FP16, as the operators around a chain would.

    Otherwise TensorRT computes small chains in FP32 altogether, which saves it two conversions. What a Q reads first
    stays FP32.
    """
    quantized = {node.input[0] for node in proto.graph.node if node.op_type == "QuantizeLinear"}
    for k in range(network.num_inputs):
        if network.get_input(k).name not in quantized:
            network.get_input(k).dtype = trt.float16
    for k in range(network.num_outputs):
        network.get_output(k).dtype = trt.float16


def prefer_half(trt: Any, config: Any, network: Any) -> None:
    """Ask for FP16 in convolutions without Q/DQ, so that no time goes into measuring their FP32 kernels."""
    for k in range(network.num_layers):
        layer = network.get_layer(k)
        if layer.type in (trt.LayerType.CONVOLUTION, trt.LayerType.DECONVOLUTION) and layer.num_inputs == 1:
            layer.precision = trt.float16
    set_flag(trt, config, "PREFER_PRECISION_CONSTRAINTS")


class SharedMemory:
    """Device memory of all engines: all inputs of a type read one buffer of normal values, all outputs write one."""

    def __init__(self, device: GpuDevice) -> None:
        self._device = device
        self.filler = device.buffer(min(FILL, max(1 << 20, device.memory()[0] // 8)))
        self._outputs: Buffer | None = None
        self._inputs: dict[int, Buffer] = {}

    def outputs(self, size: int) -> Buffer:
        """Return the buffer of the outputs, of at least `size` bytes."""
        if self._outputs is None or self._outputs.size < size:
            if self._outputs is not None:
                self._outputs.free()
            self._outputs = self._device.buffer(size)
        return self._outputs

    def inputs(self, count: int, width: int) -> Buffer:
        """Return a buffer of at least `count` normal values: of float16 for a width of 2 bytes, else of float32."""
        held = self._inputs.get(width)
        if held is None or held.size < count * width:
            if held is not None:
                held.free()
            self._inputs[width] = self._filled(count, np.dtype(np.float16 if width == HALF_WIDTH else np.float32))
        return self._inputs[width]

    def _filled(self, count: int, dtype: np.dtype[Any]) -> Buffer:
        buffer = self._device.buffer(count * dtype.itemsize)
        host = self._device.pinned(buffer.size)
        values: Array = host.view(dtype)
        values[...] = np.resize(weight_pattern().astype(dtype), len(values))
        stream = self._device.stream()
        stream.upload(buffer, host)
        stream.synchronize()
        stream.free()
        return buffer

    def free(self) -> None:
        """Free all of it."""
        for buffer in (*self._inputs.values(), self._outputs, self.filler):
            if buffer is not None:
                buffer.free()


@dataclass(frozen=True, slots=True)
class BoundTensor:
    """An input or output of an engine: number of its values, and bytes of each."""

    name: str
    is_input: bool
    count: int
    width: int


def bound_tensor(trt: Any, engine: Any, name: str) -> BoundTensor:
    """Return an input or output of an engine by its name."""
    count = int(np.prod(tuple(engine.get_tensor_shape(name))))
    width = HALF_WIDTH if engine.get_tensor_dtype(name) == trt.float16 else 4
    return BoundTensor(name, engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT, count, width)


class EngineRun:
    """An engine ready to run."""

    def __init__(self, trt: Any, device: GpuDevice, engine: Any, memory: SharedMemory) -> None:
        self._memory = memory
        self.context = engine.create_execution_context()
        if self.context is None:
            raise BackendError("the GPU has no memory for a context", remedy="stop other programs on the GPU")
        self._stream = device.stream()
        bound = [bound_tensor(trt, engine, engine.get_tensor_name(i)) for i in range(engine.num_io_tensors)]
        outputs = memory.outputs(max(t.count * t.width for t in bound if not t.is_input))
        most = {t.width: max(o.count for o in bound if o.width == t.width) for t in bound}
        for tensor in bound:
            buffer = memory.inputs(most[tensor.width], tensor.width) if tensor.is_input else outputs
            self.context.set_tensor_address(tensor.name, buffer.address)

    def free(self) -> None:
        """Free the context."""
        self._stream.synchronize()
        self.context = None
        self._stream.free()

    def _enqueue(self) -> None:
        if not self.context.execute_async_v3(self._stream.handle):
            raise BackendError("TensorRT could not run a chain", remedy="see quantkit doctor")

    def graph_times(self, runs: int) -> list[float]:
        """Return the milliseconds of each run of the whole engine as a CUDA graph."""
        for _ in range(3):
            self._enqueue()
        self._stream.synchronize()
        graph = self._stream.capture(self._enqueue)
        found = []
        for k in range(runs + 5):
            first = self._stream.event()
            graph.launch(self._stream)
            last = self._stream.event()
            last.wait()
            if k >= 5:
                found.append(last.since(first))
            first.free()
            last.free()
        graph.free()
        return found

    def profile(self, profiler: Any, runs: int) -> dict[str, list[float]]:
        """Return layer → the milliseconds of each run."""
        self.context.profiler = profiler
        self.context.enqueue_emits_profile = False
        profiler.runs = {}
        fills = 1
        for k in range(runs + 3):
            self._stream.synchronize()
            waited = self._stream.event()
            for _ in range(fills):
                self._stream.fill(self._memory.filler)
            filled = self._stream.event()
            began = time.monotonic()
            self._enqueue()
            took = 1000 * (time.monotonic() - began)
            self._stream.synchronize()
            spent = filled.since(waited)
            if spent < 1.3 * took and fills < FILLS:
                fills = min(FILLS, max(fills + 1, int(fills * 1.6 * took / max(spent, 0.01))))
            if k < 3:
                profiler.silent = True
            self.context.report_to_profiler()
            profiler.silent = False
            waited.free()
            filled.free()
        return dict(profiler.runs)


def layer_profiler(trt: Any) -> Any:
    """Return an `IProfiler` that collects the times of every run."""

    class Profiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.runs: dict[str, list[float]] = {}
            self.silent = False

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            if not self.silent:
                self.runs.setdefault(layer_name, []).append(ms)

    return Profiler()
