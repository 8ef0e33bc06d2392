"""TensorRT 8.6 … 11: building engines of every precision, and running them.

Nothing is loaded before it is used: `tensorrt` and `pycuda` are imported by the functions that need them.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

MOVED = ("EntropyCalibrator", "EntropyCalibrator2", "LegacyCalibrator", "MinMaxCalibrator")
"""Names that moved to `quantkit.calibration.tensorrt` in 0.2 and keep working here until 0.3."""


def __getattr__(name: str) -> Any:
    if name not in MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"{__name__}.{name} moved to quantkit.calibration.tensorrt.{name}", DeprecationWarning, stacklevel=2)
    # imported by name because this package lies below calibration, and may not depend on it
    return getattr(import_module("quantkit.calibration.tensorrt"), name)
