"""What keeps the code readable is tested like everything else."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import quantkit

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "quantkit").rglob("*.py"))
HEAVY = (
    "numpy",
    "onnx",
    "onnxruntime",
    "tensorrt",
    "pycuda",
    "PIL",
    "pydantic",
    "matplotlib",
    "safetensors",
    "jinja2",
    "torch",
    "tensorflow",
)
NAMES = [
    "Algorithm", "BenchOptions", "Best", "BuildOptions", "BuiltEngine", "CalibrateOptions", "Calibration",
    "CalibrationTable", "Comparison", "DataOptions", "Engine", "Entropy", "EvaluateOptions", "Evaluation",
    "Finding", "FromQdq", "Histogram", "HistogramMode", "Imported", "LayersOptions", "LintReport", "MinMax", "Mse",
    "PRESETS", "Percentile", "Policy", "Precision", "Preprocess", "Quantization", "QuantizeOptions",
    "QuantkitError", "Rule", "Run", "Sensitivity", "Settings", "Statistics", "TfOptions", "TfliteOptions",
    "TorchOptions", "TritonExport", "TritonOptions", "TuneOptions", "Tuning", "__version__", "adopt", "bench",
    "build", "calibrate", "compare", "convert", "coverage", "diff", "doctor", "evaluate", "export_triton",
    "from_qdq", "from_tf", "from_tflite", "from_torch", "inspect", "layers", "lint", "load_preprocess", "merge",
    "quantize", "read_settings", "read_statistics", "read_table", "run", "tables_from", "tune", "write_statistics",
    "write_table",
]  # fmt: skip


def loaded_by(code: str) -> set[str]:
    """The heavy libraries that a Python program loads."""
    probe = f"{code}\nimport sys\nprint(*[n for n in {HEAVY!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.splitlines()[-1].split())


def test_importing_quantkit_is_free() -> None:
    assert loaded_by("import quantkit") == set()


@pytest.mark.parametrize("arguments", ["--help", "calibrate --help", "table show --help", "--version"])
def test_help_is_free(arguments: str) -> None:
    code = f"import quantkit.cli\nassert quantkit.cli.invoke({arguments.split()!r}) == 0"
    assert loaded_by(code) == set()


def test_the_public_names_are_these() -> None:
    assert sorted(quantkit.__all__) == sorted(NAMES)
    assert dir(quantkit) == sorted(quantkit.__all__)
    for name in NAMES:
        value = getattr(quantkit, name)
        if inspect.isroutine(value) or inspect.isclass(value):
            assert inspect.getdoc(value), f"{name} has no docstring"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        quantkit.nothing  # noqa: B018


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT / "quantkit").as_posix())
def test_files_are_for_readers(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert path.stem not in {"utils", "helpers", "common", "misc"}
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and path.parent.name != "cli":
            assert (node.end_lineno or 0) - node.lineno < 60, f"{node.name} is long"
            assert len(node.args.args) + len(node.args.kwonlyargs) <= 10, f"{node.name} takes many arguments"
