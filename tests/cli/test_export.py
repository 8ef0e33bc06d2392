"""`quantkit export triton` as people and programs see it."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from quantkit.cli.export import export_group
from quantkit.preprocess import Preprocess

MODEL = Path(__file__).parents[2] / "calibration_data" / "model.onnx"


def test_people_see_what_was_written(tmp_path: Path) -> None:
    done = CliRunner().invoke(export_group, ["triton", str(MODEL), "-o", str(tmp_path / "repo"), "--name", "digits"])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0] == "models   digits, digits_preprocess, digits_ensemble (version 1)"
    assert lines[1] == "batches  up to 8"
    assert lines[4] == "checked  Triton's protocol buffers accept it"
    listed = {Path(line.removeprefix("wrote    ")) for line in lines if line.startswith("wrote")}
    there = {p for p in (tmp_path / "repo").rglob("*") if p.is_file() and p.name != ".keep"}
    assert listed == there


def test_programs_get_the_same(tmp_path: Path) -> None:
    arguments = [
        "triton",
        str(MODEL),
        "-o",
        str(tmp_path / "repo"),
        "--preprocess",
        "none",
        "--max-batch",
        "0",
        "--json",
    ]
    done = CliRunner().invoke(export_group, arguments)
    assert done.exit_code == 0, done.output
    document = json.loads(done.output)
    assert (document["models"], document["max_batch"], document["tuning"]) == (["model"], 0, None)
    assert document["preprocess"] is None
    assert document["checked"] is True
    again = CliRunner().invoke(export_group, [*arguments[:4], "--force", "--json"])
    assert Preprocess.model_validate_json(json.dumps(json.loads(again.output)["preprocess"])).size == (16, 16)


def test_without_batches_no_request_waits_for_a_batch(tmp_path: Path) -> None:
    arguments = ["triton", str(MODEL), "-o", str(tmp_path / "repo"), "--preprocess", "none", "--max-batch", "0"]
    lines = CliRunner().invoke(export_group, arguments).output.splitlines()
    assert lines[1:3] == ["batches  none", "tuned    not measured: one instance (--bench)"]
