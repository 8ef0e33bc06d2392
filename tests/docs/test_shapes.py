"""The drawn shapes are the same everywhere, their labels fit, and the bundled networks find them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

import quantkit

FOLDER = Path(__file__).parents[2] / "calibration_data" / "shapes"


@pytest.fixture(scope="module")
def drawing() -> ModuleType:
    """The script as a module."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("draw", FOLDER / "draw.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["draw"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set with masks, as the script writes it."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    command = [sys.executable, str(FOLDER / "draw.py"), str(folder), "--masks", "--train", "2", "--val", "96"]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def test_a_seed_gives_the_same_pixels_on_every_machine(drawing: ModuleType) -> None:
    digest = hashlib.sha256(b"".join(drawing.draw(seed).pixels.tobytes() for seed in range(4))).hexdigest()
    assert digest == "cd3601bbc8384638df587b44add4ff5f55efbb2b48f2368f224acafe02ae1841"


def test_the_labels_fit_the_pixels(drawing: ModuleType, shapes: Path) -> None:
    for index in range(8):
        shown = drawing.draw(index)
        assert (np.asarray(Image.open(shapes / f"images/val/{index:04d}.png")) == shown.pixels).all()
        mask = np.asarray(Image.open(shapes / f"masks/val/{index:04d}.png"))
        rows = (shapes / f"labels/val/{index:04d}.txt").read_text().splitlines()
        for row, shape in zip(rows, shown.shapes, strict=True):
            kind, *fractions = row.split()
            x, y, wide, tall = np.array(fractions, float) * [320, 240, 320, 240]
            assert int(kind) == shape.kind
            assert (x - wide / 2, y - tall / 2, x + wide / 2, y + tall / 2) == pytest.approx(shape.box, abs=1e-3)
            assert shape.kind + 1 in mask[shape.pixels]
        assert set(np.unique(mask)) <= {0, *(shape.kind + 1 for shape in shown.shapes)}


def test_the_parts_of_the_data_differ(drawing: ModuleType, shapes: Path) -> None:
    train, val = (shapes / f"images/{part}/0000.png" for part in ("train", "val"))
    assert train.read_bytes() != val.read_bytes()
    assert len(set(drawing.SEEDS.values())) == 2


def test_the_detector_finds_most_and_not_all(shapes: Path) -> None:
    found = quantkit.evaluate(FOLDER / "best.onnx", shapes / "images/val").reference.metrics
    assert found["mAP50-95"] == pytest.approx(0.6007, abs=0.003)
    assert found["mAP50"] == pytest.approx(0.7877, abs=0.003)


def test_the_segmenter_finds_most_pixels(shapes: Path) -> None:
    from onnxruntime import InferenceSession

    session = InferenceSession(FOLDER / "segment.onnx")
    equal = []
    for index in range(24):
        image = Image.open(shapes / f"images/val/{index:04d}.png")
        canvas = np.full((96, 96, 3), 114, np.uint8)
        canvas[12:84] = np.asarray(image.resize((96, 72), Image.Resampling.BILINEAR))
        output = session.run(None, {"images": canvas.transpose(2, 0, 1)[None].astype(np.float32) / 255})[0]
        mask = Image.open(shapes / f"masks/val/{index:04d}.png").resize((96, 72), Image.Resampling.NEAREST)
        equal.append((output[0].argmax(0)[12:84] == np.asarray(mask)).mean())
    assert np.mean(equal) > 0.97


def test_the_networks_are_small_and_say_what_they_are() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*.onnx")) < 300_000
    operators = quantkit.inspect(FOLDER / "best.onnx").operators
    assert {"Conv", "Sigmoid", "Mul", "Concat", "Resize", "MaxPool", "Softmax", "Add"} <= set(operators)
