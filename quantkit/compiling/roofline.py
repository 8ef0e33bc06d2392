"""The roofline estimate of a compiled network on a GPU (Williams, Waterman and Patterson 2009, CACM 52:4).

    time of a kernel = max(operations / peak of its operands' type, bytes / bandwidth of the memory) + LAUNCH

Peaks and bandwidth are published ones, which kernels do not reach, so the first part is a bound from below; caches,
which make it wrong in the other direction, are left out. It is an estimate, and nothing was timed. `docs/compile.md`
compares it with engines that were: it ranks latencies, and does not tell whether INT8 beats FP16.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from quantkit.backends.tensorrt_rtx.compiled import CompiledNetwork, Kernel
from quantkit.compiling.gpus import Gpu
from quantkit.compiling.operations import kernel_operations

LAUNCH = 2.5
"""Microseconds from one kernel's end to the next one's start, assumed for all GPUs."""
ENGINES, SPEARMAN, SPEARMAN_AT_1 = 110, 0.77, 0.28
"""Engines that were timed on an H200, and the rank correlation of their latencies with the estimates: all, batch 1."""
PAIRS, RIGHT = 37, 21
"""Q/DQ engines timed beside FP16, and for how many of them the estimate tells which is faster."""
WARNING = "an estimate from published peaks and bandwidth, not a measurement"
TRUST = (
    f"the estimates rank latencies (Spearman {SPEARMAN:.2f} for {ENGINES} engines timed on an H200, "
    f"{SPEARMAN_AT_1:.2f} at batch 1), but do not tell whether INT8 is faster than FP16: they were right for "
    f"{RIGHT} of {PAIRS}. Time both: quantkit bench"
)


@dataclass(frozen=True, slots=True)
class Estimate:
    """The estimated time of a network on a GPU. compute, memory, launch: milliseconds of kernels that the peak or the
    bandwidth bounds, and of launches. unknown: products whose operations are not known, which count by bytes alone."""

    gpu: str
    architecture: str
    compute: float
    memory: float
    launch: float
    unknown: int = 0

    @property
    def milliseconds(self) -> float:
        """The whole time."""
        return self.compute + self.memory + self.launch


def estimate_network(
    network: CompiledNetwork, operations: Mapping[str, int | None], gpu: Gpu, *, float32: str = "TF32"
) -> Estimate:
    """Estimate a compiled network.

    operations: node → operations. float32: the type that products of float32 are computed in, TF32 or FP32.
    """
    counts = kernel_operations(network, operations)
    compute = memory = 0.0
    for kernel in network.running:
        arithmetic = counts.get(kernel.name, 0) / (operand_peak(kernel, gpu, float32) * 1e12) * 1e3
        traffic = kernel.bytes / (gpu.bandwidth * 1e9) * 1e3
        if arithmetic > traffic:
            compute += arithmetic
        else:
            memory += traffic
    unknown = sum(kernel.name not in counts for kernel in network.products)
    return Estimate(gpu.key, network.architecture, compute, memory, len(network.running) * LAUNCH / 1e3, unknown)


def operand_peak(kernel: Kernel, gpu: Gpu, float32: str) -> float:
    """Return the peak of the widest type that a kernel multiplies, in 10¹² operations a second."""
    types = kernel.operands or ("FP32",)
    return min(gpu.peaks.get(float32 if kind == "FP32" else kind, gpu.peaks["FP16"]) for kind in types)
