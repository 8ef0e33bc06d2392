"""Options of an engine build, and the equivalent `trtexec` line."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from quantkit.backends.tensorrt.shapes import ShapeRange
from quantkit.errors import UsageError
from quantkit.table import Algorithm, CalibrationTable
from quantkit.values import NamedChoice, check_number

LEVELS = range(6)
DEFAULT_LEVEL = 3


class Precision(NamedChoice):
    """The precision that an engine may use. Each includes those before it as a fallback, except FP32."""

    FP32 = "fp32"
    TF32 = "tf32"
    FP16 = "fp16"
    INT8 = "int8"
    BEST = "best"
    """The fastest precision for each layer, INT8 if there are scales."""


class Verbosity(NamedChoice):
    """The amount of information that the engine keeps about its layers."""

    DETAILED = "detailed"
    NAMES = "names"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """Options of an engine build. Defaults suit most networks."""

    precision: Precision = Precision.INT8
    fp16: bool = True
    """Allow layers of an INT8 engine to fall back to FP16, not only to FP32."""
    tf32: bool = True
    """Allow FP32 layers to use TF32; `fp32` never does."""
    shapes: tuple[str, ...] = ()
    workspace: int | None = None
    """Bytes of scratch memory; TensorRT's default is all of the GPU."""
    level: int = DEFAULT_LEVEL
    """TensorRT's `builder_optimization_level`, 0 … 5: how long it searches for fast kernels."""
    timing_cache: bool = True
    """Keep measured kernel times beside the engine, and use them for the next build."""
    version_compatible: bool = False
    hardware_compatible: bool = False
    refit: bool = False
    strongly_typed: bool = False
    verbosity: Verbosity = Verbosity.DETAILED
    exclude: tuple[str, ...] = ()
    """Nodes to exclude from INT8: names, patterns (`/head/*`) or operators (`Softmax`)."""
    min_coverage: float = 0.9
    """Fraction of the network's float tensors that must have a scale."""
    retarget: bool = False
    """Use a table of another TensorRT version."""
    device: int = 0
    force: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "precision", Precision.named(self.precision))
        object.__setattr__(self, "verbosity", Verbosity.named(self.verbosity))
        check_number("level", self.level, LEVELS[0], LEVELS[-1])
        check_number("min_coverage", self.min_coverage, 0.0, 1.0, whole=False)
        check_number("workspace", self.workspace, 1, (1 << 63) - 1)
        check_number("device", self.device, 0)
        if self.precision is Precision.TF32 and not self.tf32:
            raise UsageError("precision tf32 contradicts --no-tf32", remedy="build with --precision fp32")
        if self.exclude and self.precision not in (Precision.INT8, Precision.BEST):
            raise UsageError(
                f"--exclude excludes nodes from INT8, but the precision is {self.precision.value}",
                remedy="leave out --exclude, or build with --precision int8",
            )

    @property
    def int8(self) -> bool:
        """True if INT8 is allowed."""
        return self.precision in (Precision.INT8, Precision.BEST)

    def flags(self, *, scales: bool) -> tuple[str, ...]:
        """Return the builder flags of the precision, for versions that have them; TF32 is on unless it is cleared.

        scales: True if there are scales; without them TensorRT would invent INT8 ranges.
        """
        if self.precision in (Precision.FP32, Precision.TF32):
            return ()
        half = ("FP16",) if self.fp16 or self.precision is Precision.FP16 else ()
        return ("INT8", *half) if self.int8 and scales else half

    @property
    def allows_tf32(self) -> bool:
        """True if FP32 layers may use TF32."""
        return self.precision is not Precision.FP32 and self.tf32

    def document(self) -> dict[str, object]:
        """Return the options that the engine depends on, for the record beside it."""
        return {
            "precision": self.precision.value,
            "fp16": self.fp16,
            "tf32": self.allows_tf32,
            "workspace": self.workspace,
            "level": self.level,
            "version_compatible": self.version_compatible,
            "hardware_compatible": self.hardware_compatible,
            "refit": self.refit,
            "strongly_typed": self.strongly_typed,
            "verbosity": self.verbosity.value,
            "timing_cache": self.timing_cache,
            "exclude": list(self.exclude),
        }


class BuildFields(TypedDict, total=False):
    """The keywords of `build` that are fields of `BuildOptions`."""

    precision: Precision | str
    fp16: bool
    tf32: bool
    shapes: str | Sequence[str]
    workspace: int | None
    level: int
    timing_cache: bool
    version_compatible: bool
    hardware_compatible: bool
    refit: bool
    strongly_typed: bool
    verbosity: Verbosity | str
    exclude: str | Sequence[str]
    min_coverage: float
    retarget: bool
    device: int
    force: bool


@dataclass(frozen=True, slots=True)
class TrtexecCommand:
    """A `trtexec` line, or the reason why there is none."""

    line: str | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class BuildFiles:
    """The files of a build, and facts about it, for a `trtexec` line."""

    model: Path
    engine: Path
    table: Path | None = None
    timing_cache: Path | None = None
    shares_profile: bool = False
    """True if TensorRT needs an option so that several contexts can use one profile (8.6)."""
    ranges: Mapping[str, ShapeRange] = field(default_factory=dict)
    explicit: bool = False
    """True if the model has Q/DQ."""
    always_strong: bool = False
    """True if this TensorRT has no precision flags."""
    fp8: bool = False
    """True if the network is quantized to FP8."""

    @property
    def has_scales(self) -> bool:
        """True if INT8 has scales to work with."""
        return self.explicit or self.table is not None


def equivalent_trtexec(
    options: BuildOptions, files: BuildFiles, table: CalibrationTable | None, kept: Sequence[str]
) -> TrtexecCommand:
    """Return the `trtexec` line that builds the same engine (options of TensorRT 8.6 … 10.x)."""
    if table is not None and table.header.algorithm is not Algorithm.ENTROPY_2:
        return TrtexecCommand(
            None,
            f"trtexec reads only {Algorithm.ENTROPY_2.value} tables, and this is {table.header.algorithm.value} "
            "(quantkit table convert changes the header)",
        )
    words = ["trtexec", f"--onnx={files.model}", f"--saveEngine={files.engine}"]
    if files.always_strong:
        pass  # the network defines its precisions, and there is no option for them
    elif options.strongly_typed:
        words.append("--stronglyTyped")
    else:
        words += [f"--{flag.lower()}" for flag in reversed(options.flags(scales=files.has_scales))]
        words += ["--fp8"] if files.fp8 else []
    words += [] if options.allows_tf32 else ["--noTF32"]
    words += [f"--calib={files.table}"] if files.table else []
    words += shape_words(files.ranges)
    if options.workspace is not None:
        words.append(f"--memPoolSize=workspace:{-(-options.workspace // 2**20)}")
    words.append(f"--builderOptimizationLevel={options.level}")
    words.append(f"--timingCacheFile={files.timing_cache}" if files.timing_cache else "--noBuilderCache")
    words += ["--preview=+profileSharing0806"] if files.shares_profile else []
    words += ["--versionCompatible"] if options.version_compatible else []
    words += ["--hardwareCompatibilityLevel=ampere+"] if options.hardware_compatible else []
    words += ["--refit"] if options.refit else []
    words += [f"--device={options.device}"] if options.device else []
    verbosity = "layer_names_only" if options.verbosity is Verbosity.NAMES else options.verbosity.value
    words.append(f"--profilingVerbosity={verbosity}")
    if kept:
        types = ",".join(f"{name}:{'fp16' if options.fp16 else 'fp32'}" for name in kept)
        words += ["--precisionConstraints=obey", f"--layerPrecisions={types}", f"--layerOutputTypes={types}"]
    return TrtexecCommand(shlex.join(words))


def shape_words(ranges: Mapping[str, ShapeRange]) -> list[str]:
    """Return `--minShapes=… --optShapes=… --maxShapes=…` for the dynamic inputs."""
    dynamic = {name: r for name, r in ranges.items() if not r.fixed}
    words = []
    for option, of in (("min", "least"), ("opt", "best"), ("max", "most")):
        if dynamic:
            shapes = ",".join(f"{name}:{'x'.join(map(str, getattr(r, of)))}" for name, r in dynamic.items())
            words.append(f"--{option}Shapes={shapes}")
    return words
