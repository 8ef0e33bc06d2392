"""TensorRT without a GPU: the real bindings, and stand-ins for what they cannot make over stub libraries.

`tensorrt` is the real module: enumerations, calibrator bases, ILogger, IProgressMonitor, nptype … Only Builder,
Runtime and OnnxParser, and what comes from them, are stand-ins. A stand-in has exactly the attributes that its real
class has in this version: any other raises AttributeError, a deprecated one warns as the real one does, and all that
is touched is noted in `TOUCHED`. What a stand-in does is a plausible little of what TensorRT does.
"""

from __future__ import annotations

import inspect
import json
import re
import struct
import traceback
import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import host_cuda
import numpy as np
import onnx
import tensorrt as real

from quantkit.tensorrt_version import installed_number

MAJOR = int(real.__version__.partition(".")[0])
NUMBER = installed_number()
HAS_CALIBRATORS = hasattr(real, "IInt8EntropyCalibrator2")
TOUCHED: set[str] = set()
"""`IBuilderConfig.set_flag()`, `ILayer.precision (write)`, `BuilderFlag.INT8`: what was used since the start."""
WARNS = frozenset(
    line.partition("\t")[2]
    for line in Path(__file__).with_name("deprecations.tsv").read_text().splitlines()
    if line.startswith(f"{real.__version__}\t")
)


@dataclass
class Build:
    """What one `build_serialized_network` was given and did."""

    flags: set[str] = field(default_factory=set)
    strong: bool = False
    level: int | None = None
    workspace: int | None = None
    layers: dict[str, str] = field(default_factory=dict)
    """Name → kind."""
    precisions: dict[str, str] = field(default_factory=dict)
    table_read: bytes | None = None
    batches: list[dict[str, np.ndarray]] = field(default_factory=list)
    calibration_shapes: dict[str, tuple[int, ...]] | None = None
    timing_cache: bytes | None = None
    stopped: bool = False


@dataclass
class World:
    """How TensorRT behaves in a test, and what it did. `fails`: what it logs instead of building."""

    fails: tuple[str, ...] = ()
    starts: bool = True
    takes_timing_cache: bool = True
    contexts: int = 8
    unparsable: tuple[str, ...] = ()
    builds: list[Build] = field(default_factory=list)

    @property
    def build(self) -> Build:
        return self.builds[-1]


WORLD = World()


def reset(**behaviour: Any) -> World:
    """A fresh TensorRT."""
    global WORLD
    WORLD = World(**behaviour)
    return WORLD


# ── what a stand-in may be asked ──


@cache
def deprecated(kind: type, name: str) -> bool:
    """Whether the docstring says so: a method's own, an attribute's in that of its class."""
    texts = [getattr(inspect.getattr_static(kind, name), "__doc__", None) or ""]
    for base in kind.__mro__:
        texts += re.findall(rf":ivar {name}:(.*?)(?=:ivar|\Z)", base.__doc__ or "", re.DOTALL)
    return any("deprecated" in text.lower() for text in texts)


def member(value: Any) -> None:
    """Note that an enumeration's member was handed to TensorRT."""
    note(f"{type(value).__name__}.{value.name}", value.name in deprecated_members(type(value)))


@cache
def deprecated_members(kind: Any) -> frozenset[str]:
    entries = getattr(kind, "__entries")
    return frozenset(name for name, (_, text) in entries.items() if "deprecated" in (text or "").lower())


DEPRECATED: set[str] = set()
"""The part of TOUCHED that this version calls deprecated."""


def note(what: str, is_deprecated: bool) -> None:
    TOUCHED.add(what)
    if is_deprecated:
        DEPRECATED.add(what)


def touch(kind: type, name: str, how: str) -> None:
    """AttributeError where the real class has no such attribute, or cannot be written to."""
    try:
        there = inspect.getattr_static(kind, name)
    except AttributeError:
        raise AttributeError(f"TensorRT {real.__version__}: {kind.__name__} has no {name!r}") from None
    if how == "write" and getattr(there, "fset", None) is None:
        raise AttributeError(f"TensorRT {real.__version__}: {kind.__name__}.{name} cannot be set")
    suffix = f" ({how})" if isinstance(there, property) else "()"
    what = f"{kind.__name__}.{name}{suffix}"
    owned = {f"{base.__name__}.{name}{suffix}" for base in kind.__mro__}
    warns = not owned.isdisjoint(WARNS)
    note(what, warns or deprecated(kind, name))
    if warns:
        warnings.warn(f"{what} is deprecated", DeprecationWarning, stacklevel=3)


class Checked:
    """A stand-in for an object of the real class of its name. What starts with `_` is its own affair."""

    _writes: dict[str, Any] = {}  # noqa: RUF012
    """Attribute → the type of what may be written there."""

    def __init__(self) -> None:
        self._kind = getattr(real, type(self).__name__)

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_"):
            return object.__getattribute__(self, name)
        touch(self._kind, name, "read")
        try:
            return object.__getattribute__(self, name)
        except AttributeError:
            raise NotImplementedError(f"the stand-in of {self._kind.__name__} lacks {name}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "__class__":  # the way down from ILayer
            assert issubclass(value, self._kind)
            self._kind = value
            return
        if not name.startswith("_"):
            touch(self._kind, name, "write")
            expect(value, self._writes[name], name)
        object.__setattr__(self, name, value)

    def __enter__(self) -> Any:
        raise AssertionError(f"`with` on {self._kind.__name__} is deprecated")


def expect(value: Any, kind: Any, where: str) -> Any:
    """TypeError where pybind11 would raise it. `kind`: a type, or the name of TensorRT's."""
    wanted = getattr(real, kind) if isinstance(kind, str) else kind
    if not isinstance(value, wanted):
        raise TypeError(f"{where}: incompatible function arguments: {value!r} is no {wanted.__name__}")
    return value


def dims(value: Any) -> tuple[int, ...]:
    """What is taken for Dims."""
    return tuple(real.Dims(tuple(value)))


# ── the network ──


class ITensor(Checked):
    is_shape_tensor = False

    def __init__(self, name: str, dtype: Any, shape: tuple[int, ...]) -> None:
        super().__init__()
        self._name, self._dtype, self._shape = name, dtype, shape

    name = property(lambda self: self._name)
    dtype = property(lambda self: self._dtype)
    shape = property(lambda self: real.Dims(self._shape))


class ILayer(Checked):
    num_outputs = 1

    def __init__(self, name: str, kind: str, inputs: list[ITensor], output: ITensor, values: Any = None) -> None:
        super().__init__()
        self._name, self._type, self._inputs, self._output = name, getattr(real.LayerType, kind), inputs, output
        self._values, self._chosen = values, ""

    name = property(lambda self: self._name)
    type = property(lambda self: self._type)
    weights = property(lambda self: self._values)
    precision = property(
        lambda _: real.float32, lambda self, value: setattr(self, "_chosen", expect(value, "DataType", "").name)
    )
    _writes = {"precision": "DataType"}  # noqa: RUF012

    def get_input(self, index: int) -> ITensor:
        return self._inputs[index]

    def get_output(self, index: int) -> ITensor:
        assert index == 0
        return self._output

    def set_output_type(self, index: int, dtype: Any) -> None:
        assert index == 0
        expect(dtype, "DataType", "dtype")


class INetworkDefinition(Checked):
    def __init__(self, flags: int) -> None:
        super().__init__()
        for value in real.NetworkDefinitionCreationFlag.__members__.values():
            if flags >> int(value) & 1:
                member(value)
        self._strong = MAJOR >= 11 or (MAJOR == 10 and bool(flags >> 1 & 1))
        self._inputs: list[ITensor] = []
        self._layers: list[ILayer] = []
        self._outputs: list[str] = []

    num_inputs = property(lambda self: len(self._inputs))
    num_outputs = property(lambda self: len(self._outputs))
    num_layers = property(lambda self: len(self._layers))

    def get_input(self, index: int) -> ITensor:
        return self._inputs[index]

    def get_layer(self, index: int) -> ILayer:
        return self._layers[index]

    @property
    def _tensors(self) -> list[str]:
        return [t._name for t in [*self._inputs, *(layer._output for layer in self._layers)]]


class ParserError(Checked):
    def __init__(self, index: int, node: Any) -> None:
        super().__init__()
        self._index, self._node = index, node

    def desc(self) -> str:
        return "Assertion failed: nobody knows how\n"

    def node(self) -> int:
        return self._index

    def node_name(self) -> str:
        return str(self._node.name)

    def node_operator(self) -> str:
        return str(self._node.op_type)


KINDS = {
    "Cast": "IDENTITY", "Conv": "CONVOLUTION", "Relu": "ACTIVATION", "Add": "ELEMENTWISE", "QuantizeLinear": "QUANTIZE",
    "DequantizeLinear": "DEQUANTIZE", "NonZero": "NON_ZERO",
}  # fmt: skip
UNKNOWN_TO_PARSER = "Mystery"


class OnnxParser(Checked):
    """Makes a layer of every node; an initializer of an Add becomes a constant and a reshape of it."""

    def __init__(self, network: INetworkDefinition, logger: Any) -> None:
        super().__init__()
        expect(network, INetworkDefinition, "network")
        expect(logger, "ILogger", "logger")
        self._network, self._errors = network, []

    num_errors = property(lambda self: len(self._errors))

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def supports_operator(self, op_name: str) -> bool:
        return expect(op_name, str, "op_name") != UNKNOWN_TO_PARSER

    def parse(self, model: bytes, path: str | None = None) -> bool:
        expect(model, bytes, "model")
        assert path is None or Path(path).is_file()
        graph = onnx.load_model_from_string(model).graph
        network, weights = self._network, {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
        tensors: dict[str, ITensor] = {}
        for value in graph.input:
            shape = tuple(d.dim_value or -1 for d in value.type.tensor_type.shape.dim)
            tensors[value.name] = ITensor(value.name, real.float32, shape)
            network._inputs.append(tensors[value.name])
        for index, node in enumerate(graph.node):
            if node.op_type in WORLD.unparsable:
                self._errors.append(ParserError(index, node))
            if node.op_type not in KINDS:
                continue
            if node.op_type == "Add" and node.input[1] in weights:
                name = node.input[1]
                constant, reshaped = (ITensor(n, real.float32, (1, 2, 1, 1)) for n in (name, f"{name}_reshaped"))
                network._layers.append(ILayer(name, "CONSTANT", [], constant, weights[name]))
                network._layers.append(ILayer(f"{name}_reshape", "SHUFFLE", [constant], reshaped))
            output = ITensor(node.output[0], real.float32, (-1, 2, 4, 4))
            inputs = [tensors[name] for name in node.input if name in tensors]
            network._layers.append(ILayer(node.name, KINDS[node.op_type], inputs, output))
            tensors[node.output[0]] = output
        network._outputs = [] if self._errors else [value.name for value in graph.output]
        return not self._errors and all(node.op_type in KINDS for node in graph.node)


# ── the build ──


class IOptimizationProfile(Checked):
    def __init__(self) -> None:
        super().__init__()
        self._shapes: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:  # noqa: A002
        self._shapes[expect(input, str, "input")] = [dims(min), dims(opt), dims(max)]

    def get_shape(self, input: str) -> list[Any]:  # noqa: A002
        return [real.Dims(shape) for shape in self._shapes.get(expect(input, str, "input"), [])]


class IHostMemory(Checked):
    def __init__(self, content: bytes) -> None:
        super().__init__()
        self._content = content

    def __bytes__(self) -> bytes:  # the real one is a buffer
        return self._content


class ITimingCache(Checked):
    def __init__(self, content: bytes) -> None:
        super().__init__()
        self._content = content

    def combine(self, input_cache: ITimingCache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self._content += expect(input_cache, ITimingCache, "input_cache")._content
        return True

    def serialize(self) -> IHostMemory:
        return IHostMemory(self._content)


class IBuilderConfig(Checked):
    """Keeps calibrator, selector and monitor alive no more than TensorRT does."""

    _writes = {  # noqa: RUF012
        "builder_optimization_level": int,
        "profiling_verbosity": "ProfilingVerbosity",
        "hardware_compatibility_level": "HardwareCompatibilityLevel",
        "int8_calibrator": "IInt8Calibrator",
        "algorithm_selector": "IAlgorithmSelector",
        "progress_monitor": "IProgressMonitor",
    }

    def __init__(self) -> None:
        super().__init__()
        self._flags, self._previews, self._profiles, self._calibration_profile = {"TF32"}, set(), [], None
        self._level, self._workspace, self._cache = 3, None, None
        self._calibrator = self._selector = self._monitor = lambda: None

    builder_optimization_level = property(lambda self: self._level, lambda self, v: setattr(self, "_level", v))
    profiling_verbosity = property(None, lambda _, v: member(v))
    hardware_compatibility_level = property(None, lambda _, v: member(v))
    int8_calibrator = property(None, lambda self, v: setattr(self, "_calibrator", weakref.ref(v)))
    algorithm_selector = property(None, lambda self, v: setattr(self, "_selector", weakref.ref(v)))
    progress_monitor = property(None, lambda self, v: setattr(self, "_monitor", weakref.ref(v)))

    def set_flag(self, flag: Any) -> None:
        member(expect(flag, "BuilderFlag", "flag"))
        self._flags.add(flag.name)

    def clear_flag(self, flag: Any) -> None:
        member(expect(flag, "BuilderFlag", "flag"))
        self._flags.discard(flag.name)

    def set_preview_feature(self, feature: Any, enable: bool) -> None:
        member(expect(feature, "PreviewFeature", "feature"))
        if enable:
            self._previews.add(feature.name)

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        member(expect(pool, "MemoryPoolType", "pool"))
        self._workspace = expect(pool_size, int, "pool_size")

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self._profiles.append(expect(profile, IOptimizationProfile, "profile"))
        return len(self._profiles) - 1

    def set_calibration_profile(self, profile: IOptimizationProfile) -> bool:
        self._calibration_profile = expect(profile, IOptimizationProfile, "profile")
        return True

    def get_calibration_profile(self) -> IOptimizationProfile | None:
        return self._calibration_profile

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None:
        expect(serialized_timing_cache, bytes, "serialized_timing_cache")
        bad = serialized_timing_cache and not WORLD.takes_timing_cache
        return None if bad else ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self._cache = expect(cache, ITimingCache, "cache")
        return True


class Builder(Checked):
    def __init__(self, logger: Any) -> None:
        super().__init__()
        self._logger = expect(logger, "ILogger", "logger")
        host_cuda.current()
        if not WORLD.starts:
            say(logger, "INTERNAL_ERROR", "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        return INetworkDefinition(expect(flags, int, "flags"))

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
        host_cuda.current()
        build = Build(
            flags=set(config._flags),
            strong=network._strong,
            level=config._level,
            workspace=config._workspace,
            layers={layer._name: layer._type.name for layer in network._layers},
            precisions={layer._name: layer._chosen for layer in network._layers if layer._chosen},
            timing_cache=config._cache._content if config._cache else None,
        )
        WORLD.builds.append(build)
        if config._cache:
            config._cache._content += b"+measured"
        dynamic = [t for t in network._inputs if -1 in t._shape]
        if dynamic and not config._profiles:
            return say(self._logger, "ERROR", "Network has dynamic or shape inputs, but no optimization profile")
        if network._strong and build.flags & {"INT8", "FP16", "BF16", "FP8"}:
            return say(self._logger, "ERROR", "a strongly typed network, and a flag for a precision")
        monitor = config._monitor() or NoMonitor()
        monitor.phase_start("Building Engine", None, 3)
        explicit = any(layer._type == real.LayerType.QUANTIZE for layer in network._layers)
        if "INT8" in build.flags and not explicit:
            calibrator = config._calibrator()
            if calibrator is None:
                return say(self._logger, "ERROR", "Calibration failure: no calibrator")
            if not calibrated(calibrator, network, config, build, self._logger):
                return None
        if WORLD.fails:
            for text in WORLD.fails:
                say(self._logger, "ERROR", text)
            return None
        for step, layer in enumerate(network._layers):
            selector = config._selector()
            if selector is not None and not selector.select_algorithms(None, [object(), object()]):
                build.stopped = True
                return say(self._logger, "ERROR", f"no algorithm for {layer._name}")
            if not monitor.step_complete("Building Engine", step):
                build.stopped = True
                return say(self._logger, "ERROR", "the build was cancelled")
        monitor.phase_finish("Building Engine")
        say(self._logger, "WARNING", "Missing scale and zero-point for tensor nothing, expect fall back to non-int8")
        say(self._logger, "WARNING", "weights are denormal")
        profile = config._profiles[0]._shapes if config._profiles else {}
        return IHostMemory(
            plan_of(network, profile, build.flags | config._previews | ({"INT8"} if explicit else set()))
        )


class NoMonitor:
    def phase_start(self, *_: Any) -> None: ...
    def step_complete(self, *_: Any) -> bool:
        return True

    def phase_finish(self, *_: Any) -> None: ...


def say(logger: Any, severity: str, text: str) -> None:
    """Log something; the result is what a failed call gives."""
    logger.log(getattr(real.ILogger.Severity, severity), text)


HEADERS = {
    "ENTROPY_CALIBRATION_2": "EntropyCalibration2",
    "ENTROPY_CALIBRATION": "EntropyCalibration",
    "MINMAX_CALIBRATION": "MinMaxCalibration",
}


def header_of(calibrator: Any) -> str:
    """The first line of the calibrator's table, by the algorithm that its C++ base tells."""
    algorithm = calibrator.get_algorithm().name
    if algorithm in HEADERS:
        return f"TRT-{NUMBER}-{HEADERS[algorithm]}"
    doubles = calibrator.get_regression_cutoff(), calibrator.get_quantile()
    return " ".join(["0", *(struct.pack(">d", value).hex() for value in doubles)])


def called(callback: Callable[..., Any], *arguments: Any) -> Any:
    """As the binding calls Python: an exception is printed, and means None."""
    try:
        return callback(*arguments)
    except BaseException:
        traceback.print_exc()
        return None


def calibrated(calibrator: Any, network: INetworkDefinition, config: IBuilderConfig, build: Build, log: Any) -> bool:
    """Read the calibrator's table or its data, as TensorRT does."""
    header = header_of(calibrator)
    build.table_read = called(calibrator.read_calibration_cache)
    if build.table_read is not None and build.table_read.decode().splitlines()[0] == header:
        called(calibrator.write_calibration_cache, memoryview(build.table_read))
        return True
    called(calibrator.get_batch_size)
    profile = config._calibration_profile or (config._profiles[0] if config._profiles else None)
    shapes = {t._name: profile._shapes[t._name][1] if -1 in t._shape else t._shape for t in network._inputs}
    build.calibration_shapes = shapes
    names = list(shapes)
    while addresses := called(calibrator.get_batch, names):
        assert len(addresses) == len(names)
        batch = {}
        for name, address in zip(names, addresses, strict=True):
            count = int(np.prod(shapes[name])) * 4
            batch[name] = host_cuda.at(address, count).view(np.float32).reshape(shapes[name]).copy()
        build.batches.append(batch)
    if not build.batches:
        say(log, "ERROR", "Calibration failure occurred with no scaling factors detected.")
        return False
    amax = max(float(np.abs(array).max()) for batch in build.batches for array in batch.values())
    scale = struct.pack(">f", amax / 127).hex()
    table = "".join(f"{line}\n" for line in (header, *(f"{name}: {scale}" for name in network._tensors)))
    called(calibrator.write_calibration_cache, memoryview(table.encode()))
    return True


def plan_of(network: INetworkDefinition, profile: dict[str, Any], flags: set[str]) -> bytes:
    """A plan is the JSON of what an engine needs."""
    tensors = [
        {"name": t._name, "mode": "INPUT", "shape": t._shape, "profile": profile.get(t._name)} for t in network._inputs
    ]
    late = any(layer._type == real.LayerType.NON_ZERO for layer in network._layers)
    tensors += [
        {"name": name, "mode": "OUTPUT", "shape": (-1,) if late else (-1, 2, 4, 4)} for name in network._outputs
    ]
    document = {"magic": "plan", "tensors": tensors, "layers": [layer._name for layer in network._layers]}
    return json.dumps({**document, "flags": sorted(flags)}).encode()


# ── the engine ──


class Runtime(Checked):
    _writes = {"engine_host_code_allowed": bool}  # noqa: RUF012

    def __init__(self, logger: Any) -> None:
        super().__init__()
        self._logger, self._trusted = expect(logger, "ILogger", "logger"), False
        host_cuda.current()
        if not WORLD.starts:
            say(logger, "INTERNAL_ERROR", "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    engine_host_code_allowed = property(lambda self: self._trusted, lambda self, v: setattr(self, "_trusted", v))

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        host_cuda.current()
        expect(serialized_engine, bytes, "serialized_engine")
        if not serialized_engine.startswith(b'{"magic": "plan"'):
            return say(self._logger, "ERROR", "Serialization assertion magicTagRead == kMAGIC_TAG failed")
        document = json.loads(serialized_engine)
        if "VERSION_COMPATIBLE" in document["flags"] and not self._trusted:
            return say(self._logger, "ERROR", "the engine holds host code, which is not allowed")
        return ICudaEngine(document)


class ICudaEngine(Checked):
    device_memory_size = device_memory_size_v2 = 4096

    def __init__(self, plan: dict[str, Any]) -> None:
        super().__init__()
        self._plan, self._tensors = plan, {t["name"]: t for t in plan["tensors"]}
        self._contexts: weakref.WeakSet[IExecutionContext] = weakref.WeakSet()

    num_io_tensors = property(lambda self: len(self._tensors))

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        return getattr(real.TensorIOMode, self._tensors[name]["mode"])

    def get_tensor_dtype(self, name: str) -> Any:
        assert name in self._tensors
        return real.float32

    def get_tensor_shape(self, name: str) -> Any:
        return real.Dims(tuple(self._tensors[name]["shape"]))

    def get_tensor_location(self, name: str) -> Any:
        assert name in self._tensors
        return real.TensorLocation.DEVICE

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Any]:
        assert profile_index == 0
        tensor = self._tensors[name]
        return [real.Dims(tuple(shape)) for shape in tensor["profile"] or [tensor["shape"]] * 3]

    def create_execution_context(self) -> IExecutionContext | None:
        host_cuda.current()
        shared = MAJOR >= 10 or "PROFILE_SHARING_0806" in self._plan["flags"]
        if len(self._contexts) >= (WORLD.contexts if shared else 1):
            return None
        context = IExecutionContext(self)
        self._contexts.add(context)
        return context

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector(self)


class EngineInspector(Checked):
    _writes = {}  # noqa: RUF012

    def __init__(self, engine: ICudaEngine) -> None:
        super().__init__()
        self._engine, self._context = engine, None
        self._writes = {"execution_context": IExecutionContext}

    execution_context = property(None, lambda self, value: setattr(self, "_context", value))

    def get_engine_information(self, format: Any) -> str:  # noqa: A002
        member(expect(format, "LayerInformationFormat", "format"))
        assert self._context is not None, "formats of dynamic shapes need a context"
        self._context._complete()
        kind = "Int8" if "INT8" in self._engine._plan["flags"] else "Float"
        field_name = "Format/Datatype" if MAJOR < 11 else "DataType"
        tensor = {"Name": "x", "Dimensions": [1, 2, 4, 4], field_name: f"Row major {kind}"}
        layers = [
            {
                "Name": name,
                "LayerType": "CaskConvolution",
                "Inputs": [tensor],
                "Outputs": [tensor],
                "Metadata": f"[ONNX Layer: {name}]\x1e",
            }
            for name in self._engine._plan["layers"]
        ]
        return json.dumps({"Layers": layers}).replace("\\u001e", "\x1e")  # as raw as TensorRT has it


class IExecutionContext(Checked):
    """Runs `y = 2·x` on a stream, or gives the positive values of x where the output's shape depends on the data."""

    _writes = {"profiler": "IProfiler"}  # noqa: RUF012

    def __init__(self, engine: ICudaEngine) -> None:
        super().__init__()
        self._profiler: Any = None
        self._engine = engine
        self._shapes = {n: tuple(t["shape"]) for n, t in engine._tensors.items() if t["mode"] == "INPUT"}
        self._addresses: dict[str, int] = {}
        self._allocators: dict[str, weakref.ref[Any]] = {}

    profiler = property(lambda self: self._profiler, lambda self, value: setattr(self, "_profiler", value))

    def _complete(self) -> None:
        missing = [name for name, shape in self._shapes.items() if -1 in shape]
        assert not missing, f"no shape of {missing}"

    def set_input_shape(self, name: str, shape: Any) -> bool:
        host_cuda.current()
        asked, declared = dims(shape), tuple(self._engine._tensors[name]["shape"])
        low, _, high = self._engine._tensors[name]["profile"] or [declared] * 3
        if len(asked) != len(low) or any(not a <= s <= b for a, s, b in zip(low, asked, high, strict=True)):
            return False
        self._shapes[name] = asked
        return True

    def get_tensor_shape(self, name: str) -> Any:
        if name in self._shapes:
            return real.Dims(self._shapes[name])
        return real.Dims((-1,) if self._late(name) else next(iter(self._shapes.values())))

    def _late(self, name: str) -> bool:
        return len(self._engine._tensors[name]["shape"]) == 1

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = expect(memory, int, "memory")
        return name in self._engine._tensors

    def set_output_allocator(self, name: str, output_allocator: Any) -> bool:
        self._allocators[name] = weakref.ref(expect(output_allocator, "IOutputAllocator", "output_allocator"))
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        host_cuda.current()
        self._complete()
        stream = host_cuda.STATE.streams[expect(stream_handle, int, "stream_handle")]
        source, shape = next(iter(self._shapes.items()))
        outputs = [name for name in self._engine._tensors if name not in self._shapes]
        count = int(np.prod(shape)) * 4
        for name in outputs:
            if not self._late(name):
                stream.enqueue(doubling(self._addresses[source], self._addresses[name], count))
                continue
            stream.synchronize()
            x = host_cuda.at(self._addresses[source], count).view(np.float32)
            found, allocator = x[x > 0], self._allocators[name]()
            assert allocator is not None, "the allocator is gone"
            ask = allocator.reallocate_output if MAJOR < 10 else allocator.reallocate_output_async
            address = called(ask, name, 0, found.nbytes, 256, *([] if MAJOR < 10 else [stream_handle]))
            if address is None:
                return False
            allocator.notify_shape(name, real.Dims(found.shape))
            if found.nbytes:
                host_cuda.at(address, found.nbytes)[:] = found.view(np.uint8)
        if self._profiler is not None:
            for number, name in enumerate(self._engine._plan["layers"], 1):
                called(self._profiler.report_layer_time, name, 0.25 * number)
        return True


def doubling(source: int, target: int, count: int) -> Callable[[], None]:
    """The network, when its turn comes."""
    at = host_cuda.at
    return lambda: np.multiply(at(source, count).view(np.float32), 2, out=at(target, count).view(np.float32))


class Module(ModuleType):
    """`tensorrt`, with stand-ins for the classes that cannot be instantiated."""

    Builder, Runtime, OnnxParser = Builder, Runtime, OnnxParser

    def __getattr__(self, name: str) -> Any:
        return getattr(real, name)


MODULE = Module("tensorrt")
