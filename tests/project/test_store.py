"""Steps by content: reused exactly while inputs are the same and files are whole; broken work leaves nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantkit.errors import DataError, OutputError
from quantkit.project.store import KEPT_OUTCOMES, StepOutcome, StepStore, refuse_foreign_files

INPUTS = st.dictionaries(st.text(max_size=3), st.one_of(st.integers(), st.text(max_size=3), st.none()), max_size=3)


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


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    here = store(tmp_path)
    (here.folder / ".step-1.tmp").mkdir()
    with here.lock():
        assert list(here.folder.iterdir()) == []


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
        (shown,) = here.publish({"shown": made.file("file")})
        assert shown.read_text() == made.file("file").read_text()
    assert [p.name for p in here.output.iterdir()] == ["steps", "shown"] or len(list(here.output.iterdir())) == 2


def test_files_of_others_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(OutputError, match=r"contains report\.html, which quantkit run did not write"):
        refuse_foreign_files(tmp_path, ["model.calib", "report.html"])
    (tmp_path / "steps").mkdir()
    refuse_foreign_files(tmp_path, ["report.html"])
    with pytest.raises(OutputError, match="is a file"):
        refuse_foreign_files(tmp_path / "report.html", [])


def test_the_record_lists_inputs_and_files(tmp_path: Path) -> None:
    made = worked(store(tmp_path), {"rule": "mse"})
    record = json.loads(made.file("step.json").read_text())
    assert record["inputs"] == {"rule": "mse"}
    assert list(record["files"]) == ["file"]
