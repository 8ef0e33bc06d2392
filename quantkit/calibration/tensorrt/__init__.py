"""Calibration by TensorRT: calibrator classes that stream batches to the GPU, for TensorRT 8.6 … 10.x.

Nothing is loaded before it is used: `tensorrt` and `pycuda` are imported by the functions that need them.
"""

from __future__ import annotations

from typing import Any

CALIBRATORS = ("EntropyCalibrator", "EntropyCalibrator2", "LegacyCalibrator", "MinMaxCalibrator")
__all__ = ["EntropyCalibrator", "EntropyCalibrator2", "LegacyCalibrator", "MinMaxCalibrator"]


def __getattr__(name: str) -> Any:
    if name not in CALIBRATORS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from quantkit.backends.tensorrt.versions import CALIBRATORS as BASES
    from quantkit.calibration.tensorrt.calibrators import calibrator_class

    return calibrator_class(next(a for a, base in BASES.items() if base == f"IInt8{name}"))
