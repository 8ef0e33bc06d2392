"""The TensorRT version that a table is for: the requested one, the installed one, or a default."""

from __future__ import annotations

import ctypes
import importlib.util
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from quantkit.errors import UsageError
from quantkit.view import quoted

DEFAULT_VERSION = "10.3.0"
"""The TensorRT of JetPack 6.2; tables for other versions differ only in the header."""
OLDEST_MAJOR = 8
"""The oldest TensorRT that is supported."""
FIRST_WITHOUT_TABLES = 11
"""The first major version that reads no calibration tables."""
FP8_FROM = 10
"""The first major version with FP8: NvInfer.h of 8.6.1 says that kFP8 "is not supported yet"."""
VERSION = re.compile(r"([0-9]{1,3})(?:\.([0-9]{1,3})(?:\.([0-9]{1,3})(?:\.[0-9]{1,9}){0,4})?)?(?:\.post[0-9]{1,9})?")
FOR_EXAMPLE = "for example --tensorrt-version 10.13.3"
ALL_NUMBERS = "TensorRT reads tables of its own version alone, so give all three numbers"
SONAMES = ("libnvinfer.so.11", "libnvinfer.so.10", "libnvinfer.so.9", "libnvinfer.so.8", "libnvinfer.so")


@dataclass(frozen=True, slots=True)
class TargetVersion:
    """The version number in a table's header, and its source."""

    number: int
    source: str


def installed_number() -> int | None:
    """Return the version of the TensorRT library (`getInferLibVersion`), which can differ from its Python bindings."""
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
    """Return the paths of libnvinfer in Python packages, without importing them."""
    found: list[Path] = []
    for package in ("tensorrt_libs", "tensorrt"):
        spec = sys.modules.get(package) or importlib.util.find_spec(package)
        for folder in getattr(spec, "__path__", None) or getattr(spec, "submodule_search_locations", None) or []:
            found.extend(sorted(Path(folder).glob("libnvinfer.so.*")))
    return found


def number_text(number: int) -> str:
    """Return a version number as text: `8601` → `8.6.1`, `101303` → `10.13.3`.

    This is the inverse of NV_TENSORRT_VERSION, which counts majors below 10 in thousands.
    """
    major, rest = divmod(number, 10000) if number >= 100000 else divmod(number, 1000)
    return f"{major}.{rest // 100}.{rest % 100}"


def has_driver() -> bool:
    """Return True if the library of the CUDA driver can be loaded."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def parse_version(text: str) -> tuple[int, ...]:
    """Return the numbers of a release, as many as are given: `11` → (11,), `10.13.3` → (10, 13, 3). UsageError.

    This is the one reader of versions: every command takes the same texts.
    """
    match = VERSION.fullmatch(text)
    if not match:
        raise UsageError(f"{quoted(text)} is not a TensorRT version", remedy=FOR_EXAMPLE)
    numbers = tuple(int(part) for part in match.groups() if part is not None)
    major, minor, patch = (*numbers, 0, 0)[:3]
    if major < OLDEST_MAJOR:
        raise UsageError(
            f"TensorRT {text} is not supported: its networks have no Q/DQ",
            remedy=f"give {OLDEST_MAJOR}.0 or newer, for example --tensorrt-version 8.6.1",
        )
    if major > 99 or minor > 99 or patch > 99 or (major < 10 and minor > 9):
        raise UsageError(f"there is no TensorRT {text}", remedy=FOR_EXAMPLE)
    return numbers


def version_number(text: str) -> int:
    """Return TensorRT's NV_TENSORRT_VERSION of a release: `10.13.3` → 101303, `8.6` → 8600. UsageError."""
    major, minor, patch = (*parse_version(text), 0, 0)[:3]
    if major >= FIRST_WITHOUT_TABLES:
        raise UsageError(
            f"TensorRT {text} reads no calibration tables: version 11 removed them",
            remedy=f"give 10.x or older; a Q/DQ model is for TensorRT 11: quantkit quantize MODEL --data DATA "
            f"--tensorrt-version {text}",
        )
    return major * (10000 if major >= 10 else 1000) + minor * 100 + patch


def target_version(asked: str | None) -> TargetVersion:
    """Return the `asked` version, else the installed library's if it reads tables, else the default. UsageError."""
    if asked is not None:
        number = version_number(asked)
        whole = len(parse_version(asked)) == 3
        return TargetVersion(number, "as requested" if whole else f"as requested by {asked}; {ALL_NUMBERS}")
    installed = installed_number()
    if installed is not None and installed < 110000:
        return TargetVersion(installed, "the installed TensorRT")
    why = "TensorRT 11 reads no tables" if installed else "TensorRT is not installed"
    return TargetVersion(version_number(DEFAULT_VERSION), f"default, {why}; set it with --tensorrt-version")
