"""All differences between TensorRT 8.6, 10.x and 11.x that affect quantkit, found by looking for the feature itself.

    8.6    calibrators, precision flags, weakly typed networks
    10.x   the same, calibrators deprecated; strongly typed networks, progress monitor
    11.x   strongly typed networks only: no calibrators, no precision flags, no table (docs/decisions/0009)

Enumeration values change between versions, so none is written as a number anywhere.
"""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from quantkit.errors import BackendError
from quantkit.extras import install_command
from quantkit.graph.model import Model
from quantkit.qdq.layer_counts import fp8_tensors
from quantkit.table import Algorithm
from quantkit.tensorrt_version import FP8_FROM, installed_number, number_text

GONE = "TensorRT 11 removed calibrators, calibration tables and precision flags"
INSTEAD = (
    "calibrate with --backend onnxruntime, which needs no TensorRT: `quantkit build` inserts the scales of its table "
    "into the network as Q/DQ pairs"
)
CALIBRATORS = {
    Algorithm.ENTROPY_2: "IInt8EntropyCalibrator2",
    Algorithm.MIN_MAX: "IInt8MinMaxCalibrator",
    Algorithm.ENTROPY: "IInt8EntropyCalibrator",
    Algorithm.LEGACY: "IInt8LegacyCalibrator",
}


@dataclass(frozen=True, slots=True)
class Features:
    """The features of the installed TensorRT."""

    version: str
    """The version of the library (`8.6.0`), which can differ from that of its bindings."""
    precision_flags: bool
    strong_types: bool
    progress: bool
    """True if builds report their progress, and can be cancelled."""

    @property
    def always_strong(self) -> bool:
        """True if every network is strongly typed."""
        return self.strong_types and not self.precision_flags


def tensorrt(instead: str = "") -> Any:
    """Return the module `tensorrt`. BackendError where it is missing or does not load.

    instead: an alternative that needs no TensorRT, for the remedy.
    """
    try:
        module = importlib.import_module("tensorrt")
        if not hasattr(module, "__version__"):  # a folder of that name, which Python imports as a package
            raise ModuleNotFoundError("tensorrt", name="tensorrt")
        return module
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "tensorrt"
        raise BackendError(
            "TensorRT is not installed" if missing else f"TensorRT does not load: {error}",
            remedy=f"{install_command('tensorrt')} (on Jetson it comes with JetPack){instead and f', or {instead}'}"
            if missing
            else "install the libraries that this TensorRT needs, and see quantkit doctor",
        ) from None


def library_version(trt: Any) -> str:
    """Return the version of the library, which can differ from that of a wheel's bindings (8.6.1 over 8.6.0)."""
    number = installed_number()
    return number_text(number) if number else str(trt.__version__)


def detect_features(trt: Any) -> Features:
    """Return the features of the installed bindings."""
    return Features(
        version=library_version(trt),
        precision_flags=hasattr(trt.BuilderFlag, "INT8"),
        strong_types=hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"),
        progress=hasattr(trt, "IProgressMonitor"),
    )


def fp8_flags(model: Model, features: Features, *, strong: bool) -> tuple[str, ...]:
    """Return the builder flag that an FP8 network needs; none in a strongly typed one, or without FP8.

    BackendError if this TensorRT has no FP8.
    """
    if not fp8_tensors(model):
        return ()
    if int(features.version.split(".")[0]) < FP8_FROM:
        raise BackendError(
            f"TensorRT {features.version} has no FP8, and {model.path.name} is quantized to it",
            remedy=f"build with TensorRT {FP8_FROM} or newer, or quantize with --type int8",
        )
    return () if strong else ("FP8",)


def calibrator_base(trt: Any, algorithm: Algorithm) -> Any:
    """Return TensorRT's calibrator class of an algorithm. BackendError if this version has no calibrators."""
    base = getattr(trt, CALIBRATORS[algorithm], None)
    if base is None:
        raise BackendError(f"this is TensorRT {library_version(trt)}: {GONE}", remedy=INSTEAD)
    return base


def network_flags(trt: Any, *, strongly_typed: bool) -> int:
    """Return the flags of a network with explicit batch. BackendError if strong types are requested but missing."""
    kinds = trt.NetworkDefinitionCreationFlag
    flags = 0
    if strongly_typed:
        if not hasattr(kinds, "STRONGLY_TYPED"):
            raise BackendError(
                f"TensorRT {library_version(trt)} has no strongly typed networks",
                remedy="leave out --strongly-typed, or use TensorRT 10 or newer",
            )
        if hasattr(trt.BuilderFlag, "INT8"):  # since 11 every network is strongly typed
            flags |= 1 << int(kinds.STRONGLY_TYPED)
    if hasattr(kinds, "EXPLICIT_BATCH") and not hasattr(kinds, "STRONGLY_TYPED"):  # later versions ignore it
        flags |= 1 << int(kinds.EXPLICIT_BATCH)
    return flags


@contextlib.contextmanager
def without_deprecation() -> Iterator[None]:
    """Suppress warnings about calls that 10.x deprecates without offering a replacement."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def set_calibration(config: Any, calibrator: Any, profile: Any | None) -> None:
    """Give the build its calibrator, and the one shape for calibration."""
    with without_deprecation():
        config.int8_calibrator = calibrator
        if profile is not None:
            config.set_calibration_profile(profile)


def calibration_shapes(network: Any, config: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the dynamic inputs in the calibration profile; empty if none was set."""
    with without_deprecation():
        profile = config.get_calibration_profile()
    if profile is None:
        return {}
    names = [network.get_input(i).name for i in range(network.num_inputs) if -1 in tuple(network.get_input(i).shape)]
    # an input that is not in the profile has no shapes
    return {name: tuple(found[1]) if (found := profile.get_shape(name)) else () for name in names}


def set_flag(trt: Any, config: Any, name: str) -> None:
    """Set a builder flag. BackendError where this version does not have it."""
    flag = getattr(trt.BuilderFlag, name, None)
    if flag is None:
        raise BackendError(
            f"TensorRT {library_version(trt)} has no builder flag {name}", remedy="leave that option out"
        )
    with without_deprecation():
        config.set_flag(flag)


def keep_precision(trt: Any, config: Any, layer: Any, dtype: Any) -> None:
    """Make a layer of a weakly typed network compute and output in `dtype`."""
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    with without_deprecation():
        layer.precision = dtype
        for index in range(layer.num_outputs):
            if layer.get_output(index).dtype in (trt.float32, trt.float16):
                layer.set_output_type(index, dtype)


def share_profile(trt: Any, config: Any) -> None:
    """Let several contexts use one optimization profile: a preview feature of 8.6, always on since 10."""
    if not hasattr(trt, "IProgressMonitor"):
        config.set_preview_feature(trt.PreviewFeature.PROFILE_SHARING_0806, True)


def allow_own_code(runtime: Any) -> None:
    """Let a runtime run the code that a version compatible plan contains."""
    runtime.engine_host_code_allowed = True


def device_memory(engine: Any) -> int:
    """Return the bytes of activations of one execution context."""
    if hasattr(engine, "device_memory_size_v2"):
        return int(engine.device_memory_size_v2)
    return int(engine.device_memory_size)


def parser_error(trt: Any, error: Any, nodes: list[tuple[str, str]]) -> str:
    """Return `node 'name' (Operator): problem`. `nodes`: name and operator of the nodes of the ONNX graph."""
    if hasattr(trt.ParserError, "node_name"):
        name, operator = error.node_name(), error.node_operator()
    else:
        index = error.node()
        name, operator = nodes[index] if 0 <= index < len(nodes) else ("", "")
    where = f"node {name!r} ({operator}): " if operator else ""
    return f"{where}{error.desc().strip()}"


def build_stopper(trt: Any, config: Any, stop: Callable[[], bool], phase: Callable[[str], None]) -> Any:
    """Return an object that ends a build when `stop()` is true and reports phases; None if the version has neither.

    The builder does not keep it alive: hold it until the build is over. On 8.6, only an algorithm selector can end a
    build, by choosing nothing; it disables TensorRT's timing cache and is therefore only used for calibration, whose
    engine is not needed.
    """
    if hasattr(trt, "IProgressMonitor"):
        monitor = progress_monitor(trt, stop, phase)
        config.progress_monitor = monitor
        return monitor
    return None


def selector_that_stops(trt: Any, config: Any, stop: Callable[[], bool]) -> Any:
    """Return an algorithm selector that lets TensorRT choose freely until `stop()`, and then ends the build."""

    class Selector(trt.IAlgorithmSelector):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IAlgorithmSelector.__init__(self)

        def select_algorithms(self, context: Any, choices: Any) -> list[int]:
            del context
            return [] if stop() else list(range(len(choices)))

        def report_algorithms(self, contexts: Any, choices: Any) -> None:
            del contexts, choices

    selector = Selector()
    config.algorithm_selector = selector
    config.set_flag(trt.BuilderFlag.REJECT_EMPTY_ALGORITHMS)
    config.set_flag(trt.BuilderFlag.DISABLE_TIMING_CACHE)
    return selector


def progress_monitor(trt: Any, stop: Callable[[], bool], phase: Callable[[str], None]) -> Any:
    """Return a monitor that reports TensorRT's phases; `stop()` cancels the build at its next step."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            del parent_phase
            self._steps[phase_name] = num_steps
            phase(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            phase(f"{phase_name} {step + 1}/{self._steps.get(phase_name, step + 1)}")
            return not stop()

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

    return Monitor()


def end_early(trt: Any, config: Any, stop: Callable[[], bool]) -> Any:
    """End a build whose engine is not needed as soon as `stop()` is true; hold the result until the build is over."""
    if hasattr(trt, "IProgressMonitor"):
        return build_stopper(trt, config, stop, lambda _: None)
    return selector_that_stops(trt, config, stop)


def output_allocator(
    trt: Any, allocate: Callable[[str, int], int], shape: Callable[[str, tuple[int, ...]], None]
) -> Any:
    """Return an output allocator: `allocate(name, bytes)` returns memory, `shape(name, dims)` takes the shape."""

    class Allocator(trt.IOutputAllocator):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)

        def reallocate_output(self, tensor_name: str, memory: int, size: int, alignment: int) -> int:
            del memory, alignment
            return allocate(tensor_name, size)

        def reallocate_output_async(self, tensor_name: str, memory: int, size: int, alignment: int, stream: int) -> int:
            del memory, alignment, stream
            return allocate(tensor_name, size)

        def notify_shape(self, tensor_name: str, dims: Any) -> None:
            shape(tensor_name, tuple(dims))

    return Allocator()
