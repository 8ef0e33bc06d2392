"""quantkit: INT8 post-training quantization for TensorRT.

    import quantkit
    result = quantkit.calibrate("model.onnx", "images/", output="model.calib")

The names below are the public interface; they are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from quantkit._version import __version__

if TYPE_CHECKING:
    from quantkit.backends.tensorrt.engine import Engine
    from quantkit.backends.tensorrt.options import BuildOptions, Precision
    from quantkit.data import DataOptions
    from quantkit.errors import QuantkitError
    from quantkit.export.triton import TritonExport, TritonOptions, export_triton
    from quantkit.graph import Finding, Policy
    from quantkit.histogram import Histogram, HistogramMode
    from quantkit.job.options import CalibrateOptions
    from quantkit.pipeline.bench import BenchOptions, bench
    from quantkit.pipeline.build import BuiltEngine, build
    from quantkit.pipeline.calibrate import calibrate
    from quantkit.pipeline.calibration import Calibration
    from quantkit.pipeline.convert import adopt, convert
    from quantkit.pipeline.doctor import doctor
    from quantkit.pipeline.from_qdq import FromQdq, from_qdq
    from quantkit.pipeline.inspect import inspect
    from quantkit.pipeline.linting import LintReport, lint
    from quantkit.pipeline.quantize import Quantization, QuantizeOptions, quantize
    from quantkit.pipeline.statistics import merge, tables_from
    from quantkit.preprocess import PRESETS, Preprocess, load_preprocess
    from quantkit.rules import Best, Entropy, MinMax, Mse, Percentile, Rule
    from quantkit.statistics import Statistics, read_statistics, write_statistics
    from quantkit.table import Algorithm, CalibrationTable, coverage, diff, read_table, write_table

NAMES = {
    "Algorithm": "table",
    "BenchOptions": "pipeline.bench",
    "Best": "rules",
    "BuildOptions": "backends.tensorrt.options",
    "BuiltEngine": "pipeline.build",
    "CalibrateOptions": "job.options",
    "Calibration": "pipeline.calibration",
    "CalibrationTable": "table",
    "DataOptions": "data",
    "Engine": "backends.tensorrt.engine",
    "Entropy": "rules",
    "Finding": "graph",
    "FromQdq": "pipeline.from_qdq",
    "Histogram": "histogram",
    "HistogramMode": "histogram",
    "LintReport": "pipeline.linting",
    "MinMax": "rules",
    "Mse": "rules",
    "PRESETS": "preprocess",
    "Percentile": "rules",
    "Policy": "graph",
    "Precision": "backends.tensorrt.options",
    "Preprocess": "preprocess",
    "Quantization": "pipeline.quantize",
    "QuantizeOptions": "pipeline.quantize",
    "QuantkitError": "errors",
    "Rule": "rules",
    "Statistics": "statistics",
    "TritonExport": "export.triton",
    "TritonOptions": "export.triton",
    "adopt": "pipeline.convert",
    "bench": "pipeline.bench",
    "build": "pipeline.build",
    "calibrate": "pipeline.calibrate",
    "convert": "pipeline.convert",
    "coverage": "table",
    "diff": "table",
    "doctor": "pipeline.doctor",
    "export_triton": "export.triton",
    "from_qdq": "pipeline.from_qdq",
    "inspect": "pipeline.inspect",
    "lint": "pipeline.linting",
    "load_preprocess": "preprocess",
    "merge": "pipeline.statistics",
    "quantize": "pipeline.quantize",
    "read_statistics": "statistics",
    "read_table": "table",
    "tables_from": "pipeline.statistics",
    "write_statistics": "statistics",
    "write_table": "table",
}

__all__ = [
    "PRESETS",
    "Algorithm",
    "BenchOptions",
    "Best",
    "BuildOptions",
    "BuiltEngine",
    "CalibrateOptions",
    "Calibration",
    "CalibrationTable",
    "DataOptions",
    "Engine",
    "Entropy",
    "Finding",
    "FromQdq",
    "Histogram",
    "HistogramMode",
    "LintReport",
    "MinMax",
    "Mse",
    "Percentile",
    "Policy",
    "Precision",
    "Preprocess",
    "Quantization",
    "QuantizeOptions",
    "QuantkitError",
    "Rule",
    "Statistics",
    "TritonExport",
    "TritonOptions",
    "__version__",
    "adopt",
    "bench",
    "build",
    "calibrate",
    "convert",
    "coverage",
    "diff",
    "doctor",
    "export_triton",
    "from_qdq",
    "inspect",
    "lint",
    "load_preprocess",
    "merge",
    "quantize",
    "read_statistics",
    "read_table",
    "tables_from",
    "write_statistics",
    "write_table",
]


def __getattr__(name: str) -> Any:
    if name not in NAMES:
        raise AttributeError(f"module 'quantkit' has no attribute {name!r}")
    return getattr(import_module(f"quantkit.{NAMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
