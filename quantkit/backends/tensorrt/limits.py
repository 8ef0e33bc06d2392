"""Limits of a GPU, a TensorRT version or a network, reported before anything is built."""

from __future__ import annotations

from dataclasses import dataclass

from quantkit.backends.tensorrt.device import GpuDevice
from quantkit.backends.tensorrt.options import BuildOptions, Precision
from quantkit.backends.tensorrt.versions import Features
from quantkit.errors import BackendError, UsageError


@dataclass(frozen=True, slots=True)
class NetworkTraits:
    """Traits of a network. explicit: it has Q/DQ; half: its weights are float16; has_table: there is a table."""

    explicit: bool
    half: bool
    has_table: bool


def refuse_impossible(options: BuildOptions, found: Features, device: GpuDevice, network: NetworkTraits) -> None:
    """Raise BackendError or UsageError if a build cannot do what the options ask for."""
    explicit, has_table = network.explicit, network.has_table
    if options.int8 and not device.has_int8:
        raise BackendError(f"{device.name} has no fast INT8", remedy="build with --precision fp16")
    if options.precision is Precision.TF32 and not device.has_tf32:
        raise BackendError(f"{device.name} has no TF32", remedy="build with --precision fp32 or fp16")
    if explicit and has_table:
        raise UsageError(
            "the network has Q/DQ and therefore its own scales; a table cannot be used with it",
            remedy="leave out --table, or build the float network",
        )
    if explicit and not options.int8:
        raise UsageError(
            f"the network has Q/DQ, but the precision is {options.precision.value}",
            remedy="build with --precision int8, or build the float network",
        )
    if explicit and options.exclude:
        raise UsageError("a Q/DQ network defines itself what is INT8", remedy="remove the Q/DQ of those nodes instead")
    if options.precision is Precision.INT8 and not explicit and not has_table:
        raise UsageError(
            "INT8 needs scales, but the network has no Q/DQ and there is no calibration table",
            remedy="quantkit calibrate MODEL --data DATA, then build with its table (--table)",
        )
    strong = options.strongly_typed or found.always_strong
    float_alone = options.precision in (Precision.FP32, Precision.TF32)
    if strong and not (float_alone or explicit or network.half or (options.int8 and has_table)):
        why = "--strongly-typed" if found.precision_flags else f"TensorRT {found.version}"
        raise BackendError(
            f"with {why}, the network alone defines the precisions, and this one is float32: "
            f"{options.precision.value} would have no effect",
            remedy="export the model in float16, or build INT8 with a table",
        )
