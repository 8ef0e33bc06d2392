"""The recipes for schedulers in docs/scale.md run as a scheduler would run them, through its environment variables."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import quantkit
from tests.docs.test_documents import ROOT, blocks, run

PAGE = ROOT / "docs" / "scale.md"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundled data, and the statistics of the run that is not divided."""
    folder = tmp_path_factory.mktemp("scale")
    kept = shutil.ignore_patterns("*.calib*", "*.stats.*", "*.int8.onnx")
    data = shutil.copytree(ROOT / "calibration_data", folder / "calibration_data", ignore=kept)
    quantkit.calibrate(data / "model.onnx", data / "images", batch_size=4, output=folder / "whole.calib")
    return folder


def refuse_other_bytes(folder: Path, place: str) -> None:
    """Merge the shards of a recipe: they have the bytes of the run that is not divided."""
    merged = folder / f"{place}.stats.safetensors"
    quantkit.merge(folder / place, merged)
    assert merged.read_bytes() == (folder / "whole.stats.safetensors").read_bytes()


def test_the_array_of_slurm(whole: Path) -> None:
    (script,) = blocks(PAGE, "bash")
    (whole / "calibrate.sbatch").write_text(script, encoding="utf-8")
    found = re.search(r"^#SBATCH --array=0-(\d+)$", script, re.MULTILINE)
    assert found is not None
    tasks = int(found[1]) + 1
    assert f"/{tasks}" in script, "as many shards as tasks"
    for task in range(tasks):
        assert not run("bash calibrate.sbatch", whole, SLURM_ARRAY_TASK_ID=str(task), SLURM_CPUS_PER_TASK="2")
    refuse_other_bytes(whole, "slurm-run")


def test_the_indexed_job_of_kubernetes(whole: Path) -> None:
    (text,) = blocks(PAGE, "yaml")
    job: Any = yaml.safe_load(text)
    spec = job["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert spec["completionMode"] == "Indexed"
    assert container["command"] == ["sh", "-c"]
    (line,) = container["args"]
    assert f"/{spec['completions']}" in line, "as many shards as completions"
    for index in range(spec["completions"]):
        assert not run(line, whole, JOB_COMPLETION_INDEX=str(index))
    refuse_other_bytes(whole, "kubernetes-run")
