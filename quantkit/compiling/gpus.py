"""GPUs for estimates: published peaks of their tensor cores without sparsity, and the bandwidth of their memory.

Every figure has the page that it was read from. NVIDIA's own data sheets were not among the pages at hand, so most are
pages that list their figures. Peaks are at boost clock, FP16 with accumulation in FP32; no kernel reaches them.
Jetsons are missing: no page was found that states a dense FP16 peak of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quantkit.backends.tensorrt_rtx.architectures import ARCHITECTURES
from quantkit.errors import UsageError
from quantkit.view import quoted

CARDS = "https://hmc-tech.com/gpu"


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU. architecture: the one of TensorRT-RTX whose kernels stand for it; nearest: it is another than the GPU's.

    peaks: type of the operands → operations a second (an addition and a multiplication are two), in 10¹². bandwidth:
    of its memory, in 10⁹ bytes a second. sources: the pages of the peaks, and of the bandwidth.
    """

    key: str
    name: str
    architecture: str
    peaks: Mapping[str, float]
    bandwidth: float
    sources: tuple[str, str]
    nearest: bool = False

    @property
    def figures(self) -> str:
        """The figures and their sources in a line."""
        shown = ", ".join(f"{self.peaks[kind]:g} {kind}" for kind in ("INT8", "FP16", "TF32", "FP32"))
        sources = " and ".join(dict.fromkeys(self.sources))
        return f"{self.name}: {shown} (10¹² operations/s, dense), {self.bandwidth:g} GB/s, from {sources}"


def peaks(int8: float, fp16: float, fp32: float, tf32: float | None = None) -> dict[str, float]:
    """Return peaks by the type of the operands; without TF32, that is computed as FP32."""
    return {"INT8": int8, "FP16": fp16, "BF16": fp16, "TF32": fp32 if tf32 is None else tf32, "FP32": fp32}


GPUS: Mapping[str, Gpu] = {
    gpu.key: gpu
    for gpu in (
        Gpu("t4", "T4", "sm75", peaks(130.25, 65.13, 8.14), 320.0,
            (f"{CARDS}/nvidia-l4-vs-nvidia-t4", "https://sysrqmts.com/gpus/compare/nvidia-a100-sxm4-40-gb-vs-nvidia-tesla-t4")),
        Gpu("a100", "A100 40 GB", "sm80", peaks(623.74, 311.87, 19.49, 155.94), 1555.0,
            (f"{CARDS}/nvidia-l4-vs-nvidia-a100-40gb", "https://sysrqmts.com/gpus/compare/nvidia-a100-sxm4-40-gb-vs-nvidia-tesla-t4")),
        Gpu("a40", "A40", "sm86", peaks(299.34, 149.67, 37.42, 74.83), 695.8,
            (f"{CARDS}/nvidia-l40-vs-nvidia-a40", "https://www.topcpu.net/pt/gpu-c/a40-pcie-vs-l40")),
        Gpu("l4", "L4", "sm89", peaks(250.68, 125.34, 31.33, 62.67), 300.1,
            (f"{CARDS}/nvidia-l4-vs-nvidia-t4", "https://fpsbench.com/compare/gpu/nvidia-l4-vs-nvidia-tesla-m40")),
        Gpu("l40", "L40", "sm89", peaks(724.13, 362.07, 90.52, 181.03), 864.0,
            (f"{CARDS}/nvidia-l40-vs-nvidia-a40", "https://www.topcpu.net/pt/gpu-c/a40-pcie-vs-l40")),
        Gpu("l40s", "L40S", "sm89", peaks(732.86, 366.43, 91.61, 183.21), 864.0,
            (f"{CARDS}/nvidia-l40s-vs-nvidia-a16", "https://store.sourcecode.com/en-us/bg-bucket-compare/125/9820")),
        Gpu("rtx4090", "GeForce RTX 4090", "sm89", peaks(660.6, 165.15, 82.58, 82.58), 1008.0,
            ("https://waredb.com/processor/nvidia-geforce-rtx-4090",) * 2),
        Gpu("h200", "H200", "sm89", peaks(1978.9, 989.4, 66.9, 494.7), 4800.0,
            ("https://glennklockwood.com/garden/processors/h100", "https://aiwiki.ai/wiki/nvidia_h200"), nearest=True),
        Gpu("rtx5090", "GeForce RTX 5090", "sm120", peaks(838.0, 209.5, 104.8, 104.8), 1792.0,
            ("https://main-horse.github.io/posts/5090-mm-perf",
             "https://pocketmags.com/linux-format-magazine/may-2025/articles/nvidia-geforce-rtx-5090")),
    )
}  # fmt: skip
USUAL = {"sm75": "t4", "sm80": "a100", "sm86": "a40", "sm89": "l4", "sm120": "rtx5090"}
"""Architecture → the GPU that is estimated without --gpus; none for sm121."""


def parse_gpus(text: str) -> tuple[str, ...]:
    """Parse `l4,rtx4090`; spaces and hyphens do not matter. UsageError for a GPU without figures."""
    words = [word.strip().lower().replace(" ", "").replace("-", "") for word in text.split(",") if word.strip()]
    check_gpus(words)
    return tuple(dict.fromkeys(words))


def check_gpus(keys: Sequence[str]) -> None:
    """Raise UsageError for a GPU without figures, or if there is none."""
    unknown = next((key for key in keys if key not in GPUS), None)
    if unknown is not None or not keys:
        what = "no GPU is named" if unknown is None else f"there are no published figures of GPU {quoted(unknown)} here"
        raise UsageError(what, remedy=f"use {', '.join(GPUS)}")


def usual_gpus(architectures: Sequence[str]) -> tuple[str, ...]:
    """Return a usual GPU of each architecture that has one."""
    return tuple(USUAL[name] for name in architectures if name in USUAL)


def gpu_architectures(keys: Sequence[str]) -> tuple[str, ...]:
    """Return the architectures to compile for, so that these GPUs can be estimated."""
    wanted = {GPUS[key].architecture for key in keys}
    return tuple(name for name in ARCHITECTURES if name in wanted)
