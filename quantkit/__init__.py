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
    from quantkit.calibration.calibrate import calibrate
    from quantkit.calibration.convert_table import adopt, convert
    from quantkit.calibration.from_statistics import merge, tables_from
    from quantkit.calibration.options import CalibrateOptions
    from quantkit.calibration.result import Calibration
    from quantkit.data import DataOptions
    from quantkit.engines.bench import BenchOptions, bench
    from quantkit.engines.build import BuiltEngine, build
    from quantkit.errors import QuantkitError
    from quantkit.evaluation.compare import compare
    from quantkit.evaluation.comparison import Comparison
    from quantkit.evaluation.evaluate import evaluate
    from quantkit.evaluation.options import EvaluateOptions
    from quantkit.evaluation.result import Evaluation
    from quantkit.export.triton import TritonExport, TritonOptions, export_triton
    from quantkit.frameworks.convert import Imported, from_tf, from_tflite, from_torch
    from quantkit.frameworks.pytorch import TorchOptions
    from quantkit.frameworks.tensorflow import TfOptions
    from quantkit.frameworks.tflite import TfliteOptions
    from quantkit.histogram import Histogram, HistogramMode
    from quantkit.inspection.machine import doctor
    from quantkit.inspection.model import inspect
    from quantkit.linting.finding import Finding
    from quantkit.linting.lint import LintReport, lint
    from quantkit.preprocess import PRESETS, Preprocess, load_preprocess
    from quantkit.project.run import Run, run
    from quantkit.project.settings import Settings, read_settings
    from quantkit.qdq.placement import Policy
    from quantkit.quantization.from_qdq import FromQdq, from_qdq
    from quantkit.quantization.quantize import Quantization, QuantizeOptions, quantize
    from quantkit.rules import Best, Entropy, MinMax, Mse, Percentile, Rule
    from quantkit.sensitivity.layers import LayersOptions, layers
    from quantkit.sensitivity.result import Sensitivity
    from quantkit.statistics import Statistics, read_statistics, write_statistics
    from quantkit.table import Algorithm, CalibrationTable, coverage, diff, read_table, write_table
    from quantkit.tuning.result import Tuning
    from quantkit.tuning.tune import TuneOptions, tune

NAMES = {
    "Algorithm": "table",
    "BenchOptions": "engines.bench",
    "Best": "rules",
    "BuildOptions": "backends.tensorrt.options",
    "BuiltEngine": "engines.build",
    "CalibrateOptions": "calibration.options",
    "Calibration": "calibration.result",
    "CalibrationTable": "table",
    "Comparison": "evaluation.comparison",
    "DataOptions": "data",
    "Engine": "backends.tensorrt.engine",
    "Entropy": "rules",
    "EvaluateOptions": "evaluation.options",
    "Evaluation": "evaluation.result",
    "Finding": "linting.finding",
    "FromQdq": "quantization.from_qdq",
    "Histogram": "histogram",
    "HistogramMode": "histogram",
    "Imported": "frameworks.convert",
    "LayersOptions": "sensitivity.layers",
    "LintReport": "linting.lint",
    "MinMax": "rules",
    "Mse": "rules",
    "PRESETS": "preprocess",
    "Percentile": "rules",
    "Policy": "qdq.placement",
    "Precision": "backends.tensorrt.options",
    "Preprocess": "preprocess",
    "Quantization": "quantization.quantize",
    "QuantizeOptions": "quantization.quantize",
    "QuantkitError": "errors",
    "Rule": "rules",
    "Run": "project.run",
    "Sensitivity": "sensitivity.result",
    "Settings": "project.settings",
    "Statistics": "statistics",
    "TfOptions": "frameworks.tensorflow",
    "TfliteOptions": "frameworks.tflite",
    "TorchOptions": "frameworks.pytorch",
    "TritonExport": "export.triton",
    "TritonOptions": "export.triton",
    "TuneOptions": "tuning.tune",
    "Tuning": "tuning.result",
    "adopt": "calibration.convert_table",
    "bench": "engines.bench",
    "build": "engines.build",
    "calibrate": "calibration.calibrate",
    "compare": "evaluation.compare",
    "convert": "calibration.convert_table",
    "coverage": "table",
    "diff": "table",
    "doctor": "inspection.machine",
    "evaluate": "evaluation.evaluate",
    "export_triton": "export.triton",
    "from_qdq": "quantization.from_qdq",
    "from_tf": "frameworks.convert",
    "from_tflite": "frameworks.convert",
    "from_torch": "frameworks.convert",
    "inspect": "inspection.model",
    "layers": "sensitivity.layers",
    "lint": "linting.lint",
    "load_preprocess": "preprocess",
    "merge": "calibration.from_statistics",
    "quantize": "quantization.quantize",
    "read_settings": "project.settings",
    "read_statistics": "statistics",
    "read_table": "table",
    "run": "project.run",
    "tables_from": "calibration.from_statistics",
    "tune": "tuning.tune",
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
    "Comparison",
    "DataOptions",
    "Engine",
    "Entropy",
    "EvaluateOptions",
    "Evaluation",
    "Finding",
    "FromQdq",
    "Histogram",
    "HistogramMode",
    "Imported",
    "LayersOptions",
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
    "Run",
    "Sensitivity",
    "Settings",
    "Statistics",
    "TfOptions",
    "TfliteOptions",
    "TorchOptions",
    "TritonExport",
    "TritonOptions",
    "TuneOptions",
    "Tuning",
    "__version__",
    "adopt",
    "bench",
    "build",
    "calibrate",
    "compare",
    "convert",
    "coverage",
    "diff",
    "doctor",
    "evaluate",
    "export_triton",
    "from_qdq",
    "from_tf",
    "from_tflite",
    "from_torch",
    "inspect",
    "layers",
    "lint",
    "load_preprocess",
    "merge",
    "quantize",
    "read_settings",
    "read_statistics",
    "read_table",
    "run",
    "tables_from",
    "tune",
    "write_statistics",
    "write_table",
]


def __getattr__(name: str) -> Any:
    if name not in NAMES:
        raise AttributeError(f"module 'quantkit' has no attribute {name!r}")
    return getattr(import_module(f"quantkit.{NAMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
