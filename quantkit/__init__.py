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
    from quantkit.evaluation.comparison import Comparison
    from quantkit.evaluation.sensitivity import Sensitivity
    from quantkit.evaluation.tuning import Tuning
    from quantkit.evaluation.value import Evaluation
    from quantkit.export.triton import TritonExport, TritonOptions, export_triton
    from quantkit.frameworks.pytorch import TorchOptions
    from quantkit.frameworks.tensorflow import TfOptions
    from quantkit.frameworks.tflite import TfliteOptions
    from quantkit.graph import Finding, Policy
    from quantkit.histogram import Histogram, HistogramMode
    from quantkit.job.options import CalibrateOptions
    from quantkit.pipeline.bench import BenchOptions, bench
    from quantkit.pipeline.build import BuiltEngine, build
    from quantkit.pipeline.calibrate import calibrate
    from quantkit.pipeline.calibration import Calibration
    from quantkit.pipeline.compare import compare
    from quantkit.pipeline.convert import adopt, convert
    from quantkit.pipeline.doctor import doctor
    from quantkit.pipeline.evaluate import evaluate
    from quantkit.pipeline.from_qdq import FromQdq, from_qdq
    from quantkit.pipeline.importing import Imported, from_tf, from_tflite, from_torch
    from quantkit.pipeline.inspect import inspect
    from quantkit.pipeline.layers import LayersOptions, layers
    from quantkit.pipeline.linting import LintReport, lint
    from quantkit.pipeline.quantize import Quantization, QuantizeOptions, quantize
    from quantkit.pipeline.settling import EvaluateOptions
    from quantkit.pipeline.statistics import merge, tables_from
    from quantkit.pipeline.tune import TuneOptions, tune
    from quantkit.preprocess import PRESETS, Preprocess, load_preprocess
    from quantkit.project.run import Run, run
    from quantkit.project.settings import Settings, read_settings
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
    "Comparison": "evaluation.comparison",
    "DataOptions": "data",
    "Engine": "backends.tensorrt.engine",
    "Entropy": "rules",
    "EvaluateOptions": "pipeline.settling",
    "Evaluation": "evaluation.value",
    "Finding": "graph",
    "FromQdq": "pipeline.from_qdq",
    "Histogram": "histogram",
    "HistogramMode": "histogram",
    "Imported": "pipeline.importing",
    "LayersOptions": "pipeline.layers",
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
    "Run": "project.run",
    "Sensitivity": "evaluation.sensitivity",
    "Settings": "project.settings",
    "Statistics": "statistics",
    "TfOptions": "frameworks.tensorflow",
    "TfliteOptions": "frameworks.tflite",
    "TorchOptions": "frameworks.pytorch",
    "TritonExport": "export.triton",
    "TritonOptions": "export.triton",
    "TuneOptions": "pipeline.tune",
    "Tuning": "evaluation.tuning",
    "adopt": "pipeline.convert",
    "bench": "pipeline.bench",
    "build": "pipeline.build",
    "calibrate": "pipeline.calibrate",
    "compare": "pipeline.compare",
    "convert": "pipeline.convert",
    "coverage": "table",
    "diff": "table",
    "doctor": "pipeline.doctor",
    "evaluate": "pipeline.evaluate",
    "export_triton": "export.triton",
    "from_qdq": "pipeline.from_qdq",
    "from_tf": "pipeline.importing",
    "from_tflite": "pipeline.importing",
    "from_torch": "pipeline.importing",
    "inspect": "pipeline.inspect",
    "layers": "pipeline.layers",
    "lint": "pipeline.linting",
    "load_preprocess": "preprocess",
    "merge": "pipeline.statistics",
    "quantize": "pipeline.quantize",
    "read_settings": "project.settings",
    "read_statistics": "statistics",
    "read_table": "table",
    "run": "project.run",
    "tables_from": "pipeline.statistics",
    "tune": "pipeline.tune",
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
