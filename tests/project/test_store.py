"""Steps by content: reused exactly while inputs are the same and files are whole; broken work leaves nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantkit.errors import DataError, OutputError
from quantkit.project.store import KEPT_OUTCOMES, StepOutcome, StepStore, refuse_foreign_files

INPUTS = st.dictionaries(st.text(max_size=3), st.one_of(st.integers(-9, 9), st.text(max_size=3), st.none()), max_size=3)


def store(folder: Path) -> StepStore:
    made = StepStore(folder / "out")
    made.folder.mkdir(parents=True, exist_ok=True)
    return made


def worked(here: StepStore, inputs: object, text: str = "x") -> StepOutcome:
    return here.execute("step", inputs, lambda folder: (folder / "file").write_text(text) and None)  # type: ignore[arg-type]


@given(INPUTS, INPUTS)
def test_a_step_is_reused_exactly_where_its_inputs_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, first: object, second: object
) -> None:
    here = store(tmp_path_factory.mktemp("store"))
    assert not worked(here, first).reused
    assert worked(here, second).reused == (first == second)
    assert worked(here, first).reused


def test_a_step_with_unknown_inputs_is_never_reused(tmp_path: Path) -> None:
    here = store(tmp_path)
    assert not worked(here, None).reused
    assert not worked(here, None).reused


@pytest.mark.parametrize("damage", ["edit", "remove", "record"])
def test_a_damaged_outcome_is_made_again(tmp_path: Path, damage: str) -> None:
    here = store(tmp_path)
    made = worked(here, {"a": 1})
    if damage == "edit":
        made.file("file").write_text("other")
    elif damage == "remove":
        made.file("file").unlink()
    else:
        made.file("step.json").write_text("{")
    again = worked(here, {"a": 1})
    assert not again.reused
    assert again.file("file").read_text() == "x"
    assert again.digest == made.digest


def test_two_runs_at_once_end_with_the_same_outcome(tmp_path: Path) -> None:
    here = store(tmp_path)
    other: list[StepOutcome] = []

    def work(folder: Path) -> None:
        other.append(worked(here, {"a": 1}, "first"))
        (folder / "file").write_text("second")

    made = here.execute("step", {"a": 1}, work)
    assert made.file("file").read_text() == "first"
    assert (made.folder, made.digest) == (other[0].folder, other[0].digest)
    assert [path.name for path in here.folder.iterdir()] == [made.folder.name]


def test_the_digest_depends_on_the_files(tmp_path: Path) -> None:
    here = store(tmp_path)
    assert worked(here, {"a": 1}, "x").digest == worked(here, {"a": 2}, "x").digest
    assert worked(here, {"a": 1}, "x").digest != worked(here, {"a": 3}, "y").digest


@pytest.mark.parametrize("failure", [DataError("no", remedy="-"), KeyboardInterrupt()])
def test_a_failed_step_leaves_nothing(tmp_path: Path, failure: BaseException) -> None:
    here = store(tmp_path)

    def work(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise failure

    with pytest.raises(type(failure)):
        here.execute("step", {}, work)
    assert list(here.folder.iterdir()) == []
    assert not worked(here, {}).reused


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    here = store(tmp_path)

    def work(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left"):
        here.execute("step", {}, work)
    assert list(here.folder.iterdir()) == []


def test_old_outcomes_are_removed_and_the_newest_stays(tmp_path: Path) -> None:
    here = store(tmp_path)
    for number in range(3 * KEPT_OUTCOMES):
        worked(here, {"n": number})
    assert len(list(here.folder.iterdir())) == KEPT_OUTCOMES
    assert worked(here, {"n": 3 * KEPT_OUTCOMES - 1}).reused


def test_clean_forgets(tmp_path: Path) -> None:
    here = store(tmp_path)
    worked(here, {})
    with here.lock():
        assert worked(here, {}).reused
    with here.lock(clean=True):
        assert not worked(here, {}).reused


def test_a_folder_is_for_one_run_at_a_time(tmp_path: Path) -> None:
    first, second = store(tmp_path), store(tmp_path)
    with first.lock():
        worked(first, {})
        for clean in (False, True):
            with pytest.raises(OutputError, match="another run is using"), second.lock(clean=clean):
                raise AssertionError("bug in the test: two hold it")
        assert worked(first, {}).reused, "what is there stays"
    with second.lock():
        assert worked(second, {}).reused


def test_what_a_killed_run_leaves_is_removed_by_the_next(tmp_path: Path) -> None:
    """A process that is killed in the middle of a step; what looks like it, without its mark, stays."""
    here = store(tmp_path)
    script = """
import os, signal, sys
from pathlib import Path
from quantkit.project.store import StepStore

def work(folder):
    (folder / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)

here = StepStore(Path(sys.argv[1]))
with here.lock():
    here.execute("step", {}, work)
"""
    subprocess.run([sys.executable, "-c", script, here.output], check=False)
    assert [path.name for path in here.output.rglob("half")] == ["half"]
    mine = [here.folder / ".step-1.tmp", here.output / ".quantkit.12345678.tmp", here.output / ".quantkit.tmp"]
    for folder in mine:
        folder.mkdir()
        (folder / "thesis.txt").write_text("mine")
    with here.lock():
        worked(here, {})
    assert not list(here.output.rglob("half"))
    assert all((folder / "thesis.txt").exists() for folder in mine)


@pytest.mark.parametrize("others", [True, False])
def test_a_run_without_a_step_leaves_no_folder(tmp_path: Path, others: bool) -> None:
    here = StepStore(tmp_path / "out")
    if others:
        here.output.mkdir()
        (here.output / "mine").write_text("x")
    with pytest.raises(DataError), here.lock():
        raise DataError("no", remedy="-")
    assert [path.name for path in tmp_path.rglob("*")] == (["out", "mine"] if others else [])
    with here.lock():
        worked(here, {})
    assert here.folder.is_dir()


def test_published_files_are_those_of_the_step(tmp_path: Path) -> None:
    here = store(tmp_path)
    first, second = worked(here, {"a": 1}, "x"), worked(here, {"a": 2}, "y")
    for made in (first, second, first):
        (shown,) = here.publish({"file": made.file("file")})
        assert shown.read_text() == made.file("file").read_text()
    assert sorted(p.name for p in here.output.iterdir()) == ["file", "steps"]


@pytest.mark.parametrize("saved", ["by a rename", "in place"])
def test_a_published_file_is_replaced_unless_somebody_put_another_in_its_place(tmp_path: Path, saved: str) -> None:
    here = store(tmp_path)
    made = worked(here, {"a": 1})
    (shown,) = here.publish({"file": made.file("file")})
    if saved == "by a rename":
        shown.unlink()
    shown.write_text("edited")
    if saved == "by a rename":
        with pytest.raises(OutputError, match="contains file, which quantkit run did not write"):
            here.publish({"file": worked(here, {"a": 2}).file("file")})
        assert shown.read_text() == "edited"
    else:
        here.publish({"file": worked(here, {"a": 1}).file("file")})
        assert shown.read_text() == "x"


def test_a_copy_that_somebody_made_of_a_result_is_not_withdrawn(tmp_path: Path) -> None:
    here = store(tmp_path)
    (shown,) = here.publish({"file": worked(here, {}).file("file")})
    mine = shown.with_name("file.best")
    os.link(shown, mine)
    here.withdraw("file", [])
    assert mine.exists()


@pytest.mark.parametrize("saved", [True, False])
def test_files_of_others_are_not_replaced(tmp_path: Path, saved: bool) -> None:
    (tmp_path / "report.html").write_text("mine")
    if saved:
        StepStore(tmp_path).folder.mkdir()
        worked(StepStore(tmp_path), {})
    with pytest.raises(OutputError, match=r"contains report\.html, which quantkit run did not write"):
        refuse_foreign_files(tmp_path, ["model.calib", "report.html"])
    refuse_foreign_files(tmp_path, ["model.calib"])
    with pytest.raises(OutputError, match="is a file"):
        refuse_foreign_files(tmp_path / "report.html", [])


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("clean", [False, True])
def test_steps_that_no_run_made_are_refused(tmp_path: Path, linked: bool, clean: bool) -> None:
    here, there = StepStore(tmp_path / "out"), tmp_path / "elsewhere"
    here.output.mkdir()
    (there / "step-0123456789abcdef").mkdir(parents=True)
    (there / "step-0123456789abcdef" / "step.json").write_text('{"step": "step", "files": {}}')
    if linked:
        here.folder.symlink_to(there)
    else:
        there.rename(here.folder)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError, match="which quantkit run did not"):
        refuse_foreign_files(here.output, [])
    with (
        pytest.raises(OutputError, match=r"which quantkit run did not|Not a directory|symbolic links"),
        here.lock(clean=clean),
    ):
        raise AssertionError("bug in the test: it was locked")
    assert sorted(tmp_path.rglob("*")) == before


def test_clean_removes_what_runs_wrote_and_nothing_else(tmp_path: Path) -> None:
    here = store(tmp_path)
    with here.lock():
        here.publish({"file": worked(here, {}).file("file")})
    mine = [here.folder / "mine" / "thesis.txt", worked(here, {}).folder / "notes.txt", here.output / "file.best"]
    mine[0].parent.mkdir()
    for path in mine:
        path.write_text("precious")
    (here.folder / "step-fedcba9876543210").symlink_to(mine[0].parent)
    with here.lock(clean=True):
        assert not (here.output / "file").exists()
        assert not worked(here, {}).reused
    assert [path.read_text() for path in mine] == ["precious"] * 3


@pytest.mark.parametrize("text", ["[]", "5", "null", '"x"', "{}", '{"files": []}', "\ud800", "[" * 9999])
def test_a_damaged_record_has_the_step_done_again(tmp_path: Path, text: str) -> None:
    here = store(tmp_path)
    with here.lock():
        made = worked(here, {"a": 1})
    made.file("step.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    for reused in (False, True):
        with here.lock():
            refuse_foreign_files(here.output, ["file"])
            assert worked(here, {"a": 1}).reused == reused


def test_a_record_that_names_files_elsewhere_removes_none(tmp_path: Path) -> None:
    here = store(tmp_path)
    (tmp_path / "thesis.txt").write_text("mine")
    with here.lock():
        made = worked(here, {"a": 1})
    record = json.loads(made.file("step.json").read_text())
    record["files"]["../../../thesis.txt"] = "0" * 64
    made.file("step.json").write_text(json.dumps(record))
    with here.lock(clean=True):
        pass
    assert (tmp_path / "thesis.txt").exists()


def test_the_record_lists_inputs_and_files(tmp_path: Path) -> None:
    made = worked(store(tmp_path), {"rule": "mse"})
    record = json.loads(made.file("step.json").read_text())
    assert record["inputs"] == {"rule": "mse"}
    assert list(record["files"]) == ["file"]
