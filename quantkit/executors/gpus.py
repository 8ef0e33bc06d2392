"""The GPUs of this machine, over which workers on it are spread."""

from __future__ import annotations

import ctypes
import os

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""The variable by which CUDA shows a process some GPUs alone, numbered from 0."""


def visible_gpus() -> tuple[str, ...]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; none without a driver."""
    chosen = os.environ.get(VISIBLE)
    if chosen is not None:
        return tuple(name for part in chosen.split(",") if (name := part.strip()) and name not in ("-1", "NoDevFiles"))
    try:
        driver, count = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(0)
        known = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    except (OSError, AttributeError):
        return ()
    return tuple(map(str, range(count.value))) if known else ()


def gpus_to_share(provider: str, device: int = 0) -> tuple[str, ...]:
    """Return the GPUs that workers take in turn: all, if the user has named none of them; else none are shared out."""
    return visible_gpus() if provider == "cuda" and device == 0 else ()
