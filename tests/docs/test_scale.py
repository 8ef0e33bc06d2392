"""The recipes for schedulers in docs/scale.md run as a scheduler would run them, through its environment variables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from tests.docs.test_documents import ROOT, blocks, run, scratch

PAGE = ROOT / "docs" / "scale.md"
MERGE = "quantkit stats merge {} -o {}.stats.safetensors"
WHOLE = "quantkit calibrate calibration_data/model.onnx --data calibration_data/images --batch-size 4 -o whole.calib -q"
assert scratch, "a fixture of the page tests"


def refuse_other_bytes(folder: Path, place: str) -> None:
    """Merge the shards of a recipe: they have the bytes of the run that is not divided."""
    assert run(MERGE.format(place, place), folder).startswith("wrote")
    run(WHOLE, folder)
    merged, whole = (folder / f"{name}.stats.safetensors" for name in (place, "whole"))
    assert merged.read_bytes() == whole.read_bytes()


def test_the_array_of_slurm(scratch: Path) -> None:
    (script,) = blocks(PAGE, "bash")
    (scratch / "calibrate.sbatch").write_text(script, encoding="utf-8")
    first, last = map(int, re.search(r"^#SBATCH --array=(\d+)-(\d+)$", script, re.MULTILINE).groups())  # type: ignore[union-attr]
    assert f"/{last + 1}" in script, "as many shards as tasks"
    for task in range(first, last + 1):
        printed = run("bash calibrate.sbatch", scratch, SLURM_ARRAY_TASK_ID=str(task), SLURM_CPUS_PER_TASK="2")
        assert "[" not in printed.splitlines()[-1:], printed
    refuse_other_bytes(scratch, "slurm-run")


def test_the_indexed_job_of_kubernetes(scratch: Path) -> None:
    (text,) = blocks(PAGE, "yaml")
    job: Any = yaml.safe_load(text)
    spec = job["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert spec["completionMode"] == "Indexed"
    assert container["command"] == ["sh", "-c"]
    (line,) = container["args"]
    assert f"/{spec['completions']}" in line, "as many shards as completions"
    for index in range(spec["completions"]):
        run(line, scratch, JOB_COMPLETION_INDEX=str(index))
    refuse_other_bytes(scratch, "kubernetes-run")
