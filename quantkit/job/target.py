"""The TensorRT version that a table is written for."""

from __future__ import annotations

from quantkit.table.value import version_number
from quantkit.tensorrt_version import DEFAULT_VERSION, TargetVersion, installed_number


def target_version(asked: str | None) -> TargetVersion:
    """`asked`, else the installed library's own version if it reads tables, else the default. UsageError."""
    if asked is not None:
        return TargetVersion(version_number(asked), "as asked")
    installed = installed_number()
    if installed is not None and installed < 110000:
        return TargetVersion(installed, "the installed TensorRT")
    why = "TensorRT 11 reads no tables" if installed else "no TensorRT here"
    return TargetVersion(version_number(DEFAULT_VERSION), f"default, {why}; set it with --tensorrt-version")
