"""What a GPU, a TensorRT version or a network cannot do, said before anything is built."""

from __future__ import annotations

from dataclasses import dataclass

from quantkit.backends.tensorrt.device import Device
from quantkit.backends.tensorrt.options import BuildOptions, Precision
from quantkit.backends.tensorrt.versions import Features
from quantkit.errors import BackendError, UsageError


@dataclass(frozen=True, slots=True)
class NetworkTraits:
    """What matters of a network. explicit: it has Q/DQ; half: its weights are float16; has_table: there is a table."""

    explicit: bool
    half: bool
    has_table: bool


def refuse_impossible(options: BuildOptions, found: Features, device: Device, network: NetworkTraits) -> None:
    """BackendError, UsageError."""
    explicit, has_table = network.explicit, network.has_table
    if options.int8 and not device.has_int8:
        raise BackendError(f"{device.name} has no fast INT8", remedy="build with --precision fp16")
    if options.precision is Precision.TF32 and not device.has_tf32:
        raise BackendError(f"{device.name} has no TF32", remedy="build with --precision fp32 or fp16")
    if explicit and has_table:
        raise UsageError(
            "the network has Q/DQ, which tells the scales itself; a table does not go with it",
            remedy="leave out --table, or build the float network",
        )
    if explicit and not options.int8:
        raise UsageError(
            f"the network has Q/DQ, the precision is {options.precision.value}",
            remedy="build with --precision int8, or build the float network",
        )
    if explicit and options.exclude:
        raise UsageError("a Q/DQ network says itself what is INT8", remedy="leave those nodes without Q/DQ")
    if options.precision is Precision.INT8 and not explicit and not has_table:
        raise UsageError(
            "INT8 needs scales: the network has no Q/DQ, and there is no calibration table",
            remedy="quantkit calibrate MODEL --data DATA, then build with its table (--table)",
        )
    strong = options.strongly_typed or found.always_strong
    float_alone = options.precision in (Precision.FP32, Precision.TF32)
    if strong and not (float_alone or explicit or network.half or (options.int8 and has_table)):
        why = "--strongly-typed" if found.precision_flags else f"TensorRT {found.version}"
        raise BackendError(
            f"with {why} precisions come from the network alone, and this one is float32: "
            f"{options.precision.value} would change nothing",
            remedy="export the model in float16, or build INT8 with a table",
        )
