"""Evaluation by workers: the figures and intervals of one run, and a command that goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quantkit
from quantkit.errors import DataError, Interrupted, StaleError, UsageError
from quantkit.evaluation.json_document import evaluation_json
from tests.support.networks import BUNDLED, Command
from tests.support.stopping import StopAfterSamples

TEST = BUNDLED / "test"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled network, with a table."""
    folder = tmp_path_factory.mktemp("evaluated")
    for name in ("model.onnx", "preprocess.toml"):
        shutil.copy(BUNDLED / name, folder)
    quantkit.calibrate(
        folder / "model.onnx", BUNDLED / "images", output=folder / "model.calib", limit=32, backend="onnxruntime"
    )
    return folder


def evaluated(place: Path, **options: Any) -> dict[str, Any]:
    """The result without what depends on the machine's load."""
    models = [place / "model.onnx", f"{place / 'model.onnx'}+{place / 'model.calib'}"]
    return figures(evaluation_json(quantkit.evaluate(models, TEST, batch_size=8, limit=96, **options)))


def figures(document: dict[str, Any]) -> dict[str, Any]:
    """A result without speeds, duration and files."""
    document = json.loads(json.dumps(document))
    for key in ("seconds", "files"):
        document.pop(key)
    document["provenance"].pop("runs_on")
    for model in document["models"]:
        model.pop("speed")
    return document


def test_workers_give_the_figures_of_one_run(place: Path) -> None:
    whole = evaluated(place)
    assert evaluated(place, workers=3) == whole


def test_the_same_call_goes_on_and_another_one_is_refused(place: Path, tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    with pytest.raises(Interrupted, match=r"stopped after \d+ of 12 shards"):
        evaluated(place, workers=2, parts=parts, progress=StopAfterSamples(24))
    done = len(list(parts.iterdir()))
    assert 3 <= done < 12
    with pytest.raises(StaleError, match="shards of an interrupted run that differs: metrics"):
        evaluated(place, workers=2, parts=parts, metrics="top5")
    again = StopAfterSamples()
    assert evaluated(place, workers=1, parts=parts, progress=again) == evaluated(place)
    assert again.begun == [(96, 8 * done)]
    assert evaluated(place, workers=2, parts=parts, metrics="top5", force=True) == evaluated(place, metrics="top5")


def test_the_command_keeps_its_parts_beside_the_result_until_it_is_written(
    place: Path, quantkit_command: Command, tmp_path: Path
) -> None:
    line = ["evaluate", place / "model.onnx", "--data", TEST, "-q", "--batch-size", "50"]
    out = tmp_path / "out.json"
    quantkit_command(*map(str, [*line, "-o", tmp_path / "whole.json"]))
    quantkit_command(*map(str, [*line, "--workers", "2", "-o", out]))
    assert figures(json.loads(out.read_text())) == figures(json.loads((tmp_path / "whole.json").read_text()))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "whole.json"]


def test_what_cannot_be_divided_is_refused(place: Path) -> None:
    with pytest.raises(UsageError, match="merge= adds up shards that are there"):
        evaluated(place, workers=2, merge="somewhere")
    batches = [{"image": np.zeros((2, 1, 16, 16), np.float32)}]
    with pytest.raises(DataError, match="cannot be divided"):
        quantkit.evaluate(place / "model.onnx", batches, workers=2)
