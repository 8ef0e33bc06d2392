"""The bundled network and images are what their manifest says, and small."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import quantkit
from quantkit import CalibrateOptions

FOLDER = Path(__file__).parents[2] / "calibration_data"


def test_every_file_is_the_one_of_the_manifest() -> None:
    manifest = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))
    for name, digest in manifest.items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == digest, name
    assert sum((FOLDER / name).stat().st_size for name in manifest) < 2 << 20


def test_nothing_is_tracked_that_the_manifest_does_not_know() -> None:
    listed = subprocess.run(["git", "ls-files", "."], cwd=FOLDER, capture_output=True, text=True, check=False)
    tracked = set(listed.stdout.split()) - {"manifest.json"}
    assert tracked <= set(json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8")))


def test_the_network_has_what_it_is_there_to_show() -> None:
    operators = quantkit.inspect(FOLDER / "model.onnx").operators
    assert {"Conv", "BatchNormalization", "Add", "Clip", "MaxPool", "GlobalAveragePool", "Gemm"} <= set(operators)
    made = quantkit.calibrate(FOLDER / "model.onnx", FOLDER / "images", options=CalibrateOptions())
    assert (made.samples, made.warnings, made.findings) == (200, (), ())
