"""Which TensorRT a table is for: the one that is asked for, the installed one, or a stated default."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

DEFAULT_VERSION = "10.3.0"
"""TensorRT of JetPack 6.2; tables for other versions differ in the header only."""
SONAMES = ("libnvinfer.so.11", "libnvinfer.so.10", "libnvinfer.so.9", "libnvinfer.so.8", "libnvinfer.so")


@dataclass(frozen=True, slots=True)
class TargetVersion:
    """The version number in a table's header, and where it came from."""

    number: int
    source: str


def installed_number() -> int | None:
    """What the TensorRT library itself says (`getInferLibVersion`), which can differ from its Python bindings."""
    for candidate in (*bundled_libraries(), *SONAMES):
        try:
            library = ctypes.CDLL(str(candidate))
            ask = library.getInferLibVersion
        except (OSError, AttributeError):
            continue
        ask.restype = ctypes.c_int
        return int(ask())
    return None


def bundled_libraries() -> list[Path]:
    """libnvinfer inside the Python packages that carry it, without importing them."""
    found: list[Path] = []
    for package in ("tensorrt_libs", "tensorrt"):
        spec = sys.modules.get(package) or importlib.util.find_spec(package)
        for folder in getattr(spec, "__path__", None) or getattr(spec, "submodule_search_locations", None) or []:
            found.extend(sorted(Path(folder).glob("libnvinfer.so.*")))
    return found


def number_text(number: int) -> str:
    """`8601` → `8.6.1`, `101303` → `10.13.3`: the inverse of NV_TENSORRT_VERSION, which counts majors below 10 in
    thousands."""
    major, rest = divmod(number, 10000) if number >= 100000 else divmod(number, 1000)
    return f"{major}.{rest // 100}.{rest % 100}"


def has_driver() -> bool:
    """Whether the CUDA driver's library can be loaded."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True
