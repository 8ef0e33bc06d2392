"""Q/DQ models of every kind in NVIDIA's compiler: they compile, and what they call INT8 is INT8 there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quantkit.backends.tensorrt_rtx.compiling import compiler_version
from quantkit.calibration.calibrate import calibrate
from quantkit.graph import load_model
from quantkit.linting.compiler import CompileRequest, CompilerReport, compare_with_compiler
from quantkit.linting.registry import lint_model
from quantkit.quantization.quantize import quantize
from tests.support.networks import BUNDLED

pytestmark = pytest.mark.skipif(compiler_version() is None, reason="needs the extra rtx")
CHOICES: dict[str, dict[str, Any]] = {
    "default": {},
    "everything": {"policy": "all"},
    "convolutions alone": {"policy": "conv-only"},
    "weights in the file as float": {"weights": "float"},
    "weights in the file as INT8": {"weights": "int8"},
    "excluded layers": {"exclude": ["classifier", "stem/*"]},
    "no repairs": {"repairs": ()},
    "the rest in FP16": {"tensorrt_version": "11", "fp16": True},
    "TensorRT 8.6": {"tensorrt_version": "8.6"},
}
NO_INT8_KERNEL = "ConvTranspose"


@pytest.fixture(scope="module")
def statistics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compiled")
    calibrate(BUNDLED / "model.onnx", BUNDLED / "images", output=folder / "model.calib", limit=32)
    return folder / "model.stats.safetensors"


def report_on(path: Path) -> CompilerReport:
    model = load_model(path)
    return compare_with_compiler(model, lint_model(model), CompileRequest(("sm86", "sm120")))


@pytest.mark.parametrize("name", CHOICES)
def test_every_kind_of_model_compiles_and_is_int8_where_it_says(name: str, statistics: Path, tmp_path: Path) -> None:
    made = quantize(BUNDLED / "model.onnx", tmp_path / "q.onnx", statistics=statistics, **CHOICES[name])
    report = report_on(tmp_path / "q.onnx")
    assert report.refusals == ()
    assert report.findings == ()
    for network in report.networks:
        assert sum(kernel.int8 for kernel in network.products) == made.int8_layers[0]


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "fp16"),
    [
        ("resnet20", False),
        ("resnet20", True),
        ("mobilenetv2", False),
        ("vit", True),
        ("ultraface", False),
        ("yolov8n", True),
        ("mnist", False),
        ("mnist", True),
    ],
)
def test_trained_networks_compile_and_are_int8_where_they_say(
    name: str, fp16: bool, shared: Path, tmp_path: Path
) -> None:
    import numpy as np

    path = shared / "models" / f"{name}.onnx"
    (wanted,) = load_model(path).inputs
    shape = [size if isinstance(size, int) else 4 for size in wanted.shape]
    noise = np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)
    made = quantize(
        path, tmp_path / "q.onnx", data=[{wanted.name: noise}], repairs=(), fp16=fp16, tensorrt_version="11"
    )
    report = report_on(tmp_path / "q.onnx")
    assert report.refusals == ()
    assert [finding.problem for finding in report.findings if NO_INT8_KERNEL not in finding.problem] == []
    assert made.int8_layers[0] > 0
