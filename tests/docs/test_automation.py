"""Files that users copy work: the workflow's steps, the image's instructions, the recipes for tracking, the skill."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from quantkit.cli import invoke
from quantkit.cli.application import app
from tests.docs.test_documents import ROOT, blocks, environment, run
from tests.support.networks import BUNDLED

WORKFLOW = ROOT / "examples/github-actions/int8.yml"
DOCKERFILE = ROOT / "examples/docker/Dockerfile"
SKILL = ROOT / "skills/quantkit/SKILL.md"
PAGE = ROOT / "docs/automate.md"


def steps() -> list[dict[str, Any]]:
    (job,) = yaml.safe_load(WORKFLOW.read_text("utf-8"))["jobs"].values()
    return [{**step, "env": {**job["env"], **step.get("env", {})}} for step in job["steps"]]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the bundled data, as after `actions/checkout`."""
    (tmp_path / "calibration_data").mkdir()
    for name in ("model.onnx", "preprocess.toml", "images", "test"):
        (tmp_path / "calibration_data" / name).symlink_to(BUNDLED / name)
    return tmp_path


def run_steps(folder: Path, **variables: str) -> tuple[str, int]:
    """Run the workflow's lines but the installation, as the runner does; return the summary and the last exit code."""
    summary = folder / "summary.md"
    for step in steps():
        if "run" not in step or step["name"] == "Install":
            continue
        own = {**environment(), **step["env"], "GITHUB_STEP_SUMMARY": str(summary), **variables}
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
        done = subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True, check=False)
        if done.returncode:
            return summary.read_text("utf-8"), done.returncode
    return summary.read_text("utf-8"), 0


def test_the_workflow_runs(checkout: Path) -> None:
    data = ["--data", "calibration_data/test", "--output", "baseline.json"]
    invoke_in(checkout, "evaluate", "calibration_data/model.onnx", *data)
    summary, code = run_steps(checkout)
    assert code == 0
    assert "2 runs, differences in percentage points" in summary
    assert re.search(r"\| model\.int8\.onnx \| Q/DQ ONNX \| 9[89]\.\d0% \|", summary)
    assert "model.int8.onnx: nothing found" in summary
    assert {path.name for path in (checkout / "int8").iterdir()} >= {"model.calib", "model.int8.onnx", "report.html"}
    shutil.rmtree(checkout / "int8")
    (checkout / "calibration_data/preprocess.toml").unlink()
    summary, code = run_steps(checkout)
    assert code == 3
    assert "In doubt: the preprocessing" in summary


def test_the_workflow_installs_what_the_user_names() -> None:
    (install,) = [step for step in steps() if step.get("name") == "Install"]
    assert install["run"] == 'pip install "$QUANTKIT"'
    assert install["env"]["QUANTKIT"] == "${{ vars.QUANTKIT }}"
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]) for step in steps() if "uses" in step)


def instructions() -> list[tuple[str, str]]:
    """Keyword and arguments of each line of the Dockerfile."""
    lines = DOCKERFILE.read_text("utf-8").splitlines()
    return [tuple(line.split(" ", 1)) for line in lines if line and not line.startswith("#")]  # type: ignore[misc]


def test_the_image_is_made_of_files_that_exist() -> None:
    keywords = [keyword for keyword, _ in instructions()]
    assert set(keywords) <= {"FROM", "RUN", "COPY", "WORKDIR", "ENTRYPOINT", "CMD"}
    for keyword, text in instructions():
        if keyword == "COPY" and not text.startswith("--from="):
            *sources, _ = text.split()
            assert all((ROOT / source).exists() for source in sources)
        if keyword == "RUN":
            assert subprocess.run(["bash", "-n", "-c", text], check=False).returncode == 0
    copied = " ".join(text for keyword, text in instructions() if keyword == "COPY")
    assert {"README.md", "pyproject.toml", "setup.py", "LICENSE", "quantkit"} <= set(copied.split())
    assert json.loads(dict(instructions())["ENTRYPOINT"]) == ["quantkit"]


RECORDER = """
import json
from contextlib import contextmanager
from pathlib import Path

calls = []

def record(name):
    def call(*arguments, **options):
        calls.append([name, *arguments])
        Path("calls.json").write_text(json.dumps(calls))
    return call

log_params, log_metrics, set_tag, log_artifact = map(record, ("params", "metrics", "tag", "artifact"))

class Run:
    log = staticmethod(lambda what: record("log")(sorted(what)))
    class Summary(dict):
        def update(self, more):
            record("metrics")(more)
        def __setitem__(self, key, value):
            record("tag")(key, value)
    summary = Summary()

@contextmanager
def start_run(**options):
    yield Run()

init, Html = start_run, str
"""


@pytest.mark.parametrize("tracker", ["mlflow", "wandb"])
def test_the_recipes_log_the_figures(tracker: str, checkout: Path) -> None:
    """The tracker is a stand-in that keeps what it is given."""
    model = "calibration_data/model.onnx"
    invoke_in(
        checkout,
        "evaluate",
        model,
        "--data",
        "calibration_data/test",
        "-o",
        "evaluation.json",
        "--html",
        "int8.html",
    )
    (checkout / f"{tracker}.py").write_text(RECORDER, "utf-8")
    (block,) = blocks(PAGE, f"python {tracker}")
    (checkout / "recipe.py").write_text(block, "utf-8")
    assert run(f"{sys.executable} -W error recipe.py", checkout) == ""
    calls = json.loads((checkout / "calls.json").read_text("utf-8"))
    (metrics,) = [call[1] for call in calls if call[0] == "metrics"]
    assert metrics == {"model.onnx/top1": 0.985}
    assert all(re.fullmatch(r"[\w./ -]+", name) for name in metrics)
    assert calls[-1] in (["artifact", "int8.html"], ["log", ["report"]])


def invoke_in(folder: Path, *arguments: str) -> None:
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert invoke([*arguments, "--quiet"]) == 0
    finally:
        os.chdir(before)


def skill_tables() -> dict[str, list[list[str]]]:
    """The skill's tables by their first heading cell: rows of cells."""
    tables = re.findall(r"((?:^\|.*\n)+)", SKILL.read_text("utf-8"), re.MULTILINE)
    split = [
        [[cell.strip() for cell in line.strip("|\n").split(" | ")] for line in table.splitlines()] for table in tables
    ]
    return {rows[0][0]: rows[2:] for rows in split}


def words(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_skill_names_commands_that_parse() -> None:
    front = yaml.safe_load(SKILL.read_text("utf-8").split("---\n")[1])
    assert front["name"] == SKILL.parent.name
    assert len(front["description"]) < 1024
    for _, cell in skill_tables()["to"]:
        for command in words(cell):
            program, verb, *arguments = shlex.split(command)
            assert program == "quantkit"
            below: Any = app.commands[verb]
            if hasattr(below, "commands"):
                below = below.commands[arguments.pop(0)]
            below.make_context(verb, list(arguments))
            assert "--json" in arguments


def test_exit_codes_are_the_same_everywhere() -> None:
    codes = [row[0] for row in skill_tables()["code"]]
    assert codes == ["0", "1", "2", "3", "130"]
    assert re.findall(r"^\| (\d+) \|", PAGE.read_text("utf-8"), re.MULTILINE) == codes


FIELDS = {
    "calibrate": ["net/model.onnx", "--data", "imgs"],
    "quantize": ["net/model.onnx"],
    "lint": ["net/model.int8.onnx"],
    "map": ["net/model.int8.onnx"],
    "compile": ["net/model.int8.onnx", "--for", "sm86"],
    "evaluate": ["net/model.onnx", "net/model.int8.onnx", "--data", "imgs", "-o", "e.json"],
    "compare": ["e.json", "e.json"],
    "layers": ["net/model.onnx", "--data", "imgs", "--limit", "8"],
    "bench": ["net/model.onnx", "--batch", "1", "--seconds", "0.01"],
    "inspect": ["net/model.onnx"],
    "doctor": [],
    "tune": ["net/model.onnx", "--data", "imgs", "--max-drop", "50", "-o", "tuned"],
    "run": ["net/model.onnx", "--data", "imgs", "--no-layers"],
}
"""Verb → arguments, in an order in which each finds what it reads."""
NEEDS = {"compile": "tensorrt_rtx"}
"""Verb → the library without which it is left out here."""


def test_the_skill_names_fields_that_the_documents_have(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    documents = {}
    here = {verb for verb in FIELDS if importlib.util.find_spec(NEEDS.get(verb, "json"))}
    for verb, arguments in ((verb, FIELDS[verb]) for verb in FIELDS if verb in here):
        assert invoke([verb, *arguments, "--json"]) in (0, 3), verb
        documents[verb] = json.loads(capfd.readouterr().out)
    for command, cell in skill_tables()["command"]:
        verb, *inside = words(command)
        if verb not in here:
            continue
        document = documents[verb][inside[0]][-1] if inside else documents[verb]
        assert not set(words(cell)) - set(document), command
    assert {words(row[0])[0] for row in skill_tables()["command"]} == set(FIELDS)
