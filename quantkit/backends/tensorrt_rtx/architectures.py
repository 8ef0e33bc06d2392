"""GPU architectures that TensorRT-RTX compiles for, and GPUs that have them.

Source: NVIDIA, "CUDA GPU Compute Capability" (developer.nvidia.com/cuda-gpus), and TensorRT-RTX's ComputeCapability.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from quantkit.errors import UsageError
from quantkit.view import quoted

ARCHITECTURES: Mapping[str, str] = {
    "sm75": "Turing: T4, GeForce RTX 20",
    "sm80": "Ampere: A100, A30",
    "sm86": "Ampere: A10, A40, GeForce RTX 30",
    "sm89": "Ada: L4, L40, GeForce RTX 40",
    "sm120": "Blackwell: GeForce RTX 50, RTX PRO",
    "sm121": "Blackwell: GB10 (DGX Spark)",
}
DEFAULT_ARCHITECTURES = ("sm86", "sm120")
"""An older and the newest generation of PCs' GPUs."""
ABSENT = {
    "sm87": "Jetson Orin; sm86 is the nearest", "sm90": "H100, H200; sm89 is the nearest", "sm72": "Jetson Xavier",
    "sm100": "B200; sm120 is the nearest", "sm110": "Jetson Thor; sm120 is the nearest",
}  # fmt: skip


def parse_architectures(text: str) -> tuple[str, ...]:
    """Parse `sm86,sm120` or `8.6,12.0`; `all` gives every architecture. UsageError for one that is not compiled for."""
    if text.strip().lower() == "all":
        return tuple(ARCHITECTURES)
    words = [word.strip().lower() for word in text.split(",") if word.strip()]
    found = [f"sm{word.replace('.', '')}" if re.fullmatch(r"\d{1,2}\.\d", word) else word for word in words]
    check_architectures(found)
    return tuple(dict.fromkeys(found))


def check_architectures(architectures: Sequence[str]) -> None:
    """Raise UsageError for an architecture that TensorRT-RTX does not compile for, or if there is none."""
    unknown = next((word for word in architectures if word not in ARCHITECTURES), None)
    if unknown is None and architectures:
        return
    remedy = f"use {', '.join(ARCHITECTURES)}, or all"
    if unknown is None:
        raise UsageError("no architecture is named", remedy=remedy)
    what = f" ({ABSENT[unknown]})" if unknown in ABSENT else ""
    raise UsageError(f"TensorRT-RTX does not compile for {quoted(unknown)}{what}", remedy=remedy)
