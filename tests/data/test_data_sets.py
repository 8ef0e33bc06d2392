"""Every verb that takes data takes a data set: the training images calibrate, the others evaluate."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import quantkit
from tests.support.networks import BUNDLED


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """The bundled digits as a divided data set: 20 images to calibrate with, 40 to evaluate on, in class folders."""
    for source, target, count in (("images", "train", 2), ("test", "val", 4)):
        for folder in sorted((BUNDLED / source).iterdir()):
            (tmp_path / "digits" / target / folder.name).mkdir(parents=True)
            for path in sorted(folder.iterdir())[:count]:
                shutil.copy(path, tmp_path / "digits" / target / folder.name)
    shutil.copy(BUNDLED / "preprocess.toml", tmp_path)
    shutil.copy(BUNDLED / "model.onnx", tmp_path)
    return tmp_path / "digits"


def test_the_verbs_take_the_part_that_is_theirs(digits: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    made = quantkit.calibrate(model, digits, backend="onnxruntime")
    assert made.samples == 20
    assert quantkit.evaluate(model, digits).samples == 40
    assert quantkit.quantize(model, statistics=made.statistics, data=digits, repairs=("bias",)).proto
    (digits / "data.yaml").write_text("train: train\nval: val\n")
    found = quantkit.evaluate(model, digits / "data.yaml")
    assert (found.samples, found.metric) == (40, "top1")
    assert "val of data.yaml: 40 images" in found.notes


@pytest.mark.slow
def test_tune_calibrates_with_the_training_images(digits: Path, tmp_path: Path) -> None:
    made = quantkit.tune(tmp_path / "model.onnx", digits, max_drop=50, repairs=(), rules="minmax")
    assert sum(made.samples) == 40
    assert any("the training images, 20 samples" in note for note in made.notes)
