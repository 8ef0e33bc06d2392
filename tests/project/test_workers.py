"""A run whose passes are divided among workers: the same files; what they have done is kept to the end of a step."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import quantkit
from quantkit.errors import UsageError
from quantkit.progress import NoWatcher, Phases
from tests.support.networks import BUNDLED


def ran(folder: Path, name: str, *, layers: bool = False, **keywords: Any) -> Path:
    """The output folder of a short run."""
    quantkit.run(
        model=str(folder / "model.onnx"),
        data=str(BUNDLED / "images"),
        output=str(folder / name),
        gpu=False,
        compile=False,
        calibrate={"limit": 24, "batch_size": 4},
        quantize={"repairs": ()},
        evaluate={"data": str(BUNDLED / "test"), "limit": 64, "layers": layers},
        **keywords,
    )
    return folder / name


def measured_layers(output: Path) -> Any:
    """The figures of the layers, without the duration."""
    (path,) = output.glob("steps/layers-*/layers.json")
    return {**json.loads(path.read_text()), "seconds": 0, "model": ""}


class StopsInReport(NoWatcher):
    """Stops the run as soon as the evaluation has done a half, as Ctrl-C would. divided: folders of shards so far."""

    def __init__(self, steps: Path) -> None:
        self.step, self.divided, self._steps = "", set[str](), steps
        self.phases = Phases(count=self._count)

    def begin(self, step: str) -> None:
        self.step = step

    def _count(self, done: int, total: int | None) -> None:
        self.divided |= {path.name for path in self._steps.glob("*.shards")}
        if self.step == "report" and total and done >= total // 2:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_a_run_with_workers_goes_on_in_the_middle_of_a_step_and_makes_the_same_files(tmp_path: Path) -> None:
    for name in ("model.onnx", "preprocess.toml"):
        shutil.copy(BUNDLED / name, tmp_path)
    whole = ran(tmp_path, "whole", layers=True)
    watcher = StopsInReport(tmp_path / "divided" / "steps")
    with pytest.raises(KeyboardInterrupt):
        ran(tmp_path, "divided", layers=True, workers=2, watcher=watcher)
    assert watcher.divided == {"statistics.shards", "layers.shards", "report.shards"}
    assert list((tmp_path / "divided" / "steps" / "report.shards").iterdir())
    divided = ran(tmp_path, "divided", layers=True, workers=2)
    assert not list(divided.glob("steps/*.shards"))
    for name in ("model.calib", "model.stats.safetensors", "model.int8.onnx"):
        assert (divided / name).read_bytes() == (whole / name).read_bytes()
    assert measured_layers(divided) == measured_layers(whole)


def test_a_cluster_that_is_none_is_refused_before_the_first_step(tmp_path: Path) -> None:
    shutil.copy(BUNDLED / "model.onnx", tmp_path)
    with pytest.raises(UsageError, match="is no Ray cluster"):
        ran(tmp_path, "out", on="spark")
    assert not (tmp_path / "out").exists()
