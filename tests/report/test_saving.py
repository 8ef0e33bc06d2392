"""Values with a page are saved by the suffix of the file, with the content that the command line writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import quantkit
from quantkit.errors import OutputError, StaleError, UsageError
from quantkit.evaluation.json_document import evaluation_json
from quantkit.report.html import evaluation_page, sensitivity_page, tuning_page
from quantkit.report.markdown import markdown_text
from quantkit.report.saving import FORMS
from quantkit.view import SavableDisplay
from tests.report.test_tuning import tuning
from tests.support.reports import candidate, evaluation, sensitivity

VALUES = {
    "evaluation": (evaluation(candidate()), evaluation_page),
    "sensitivity": (sensitivity("conv1", "head"), sensitivity_page),
    "tuning": (tuning(), tuning_page),
}
each = pytest.mark.parametrize("name", VALUES)


def test_every_value_with_a_page_is_here() -> None:
    assert all(getattr(quantkit, name) for name in quantkit.__all__)
    kinds = {kind.__qualname__ for kind in SavableDisplay.__subclasses__()}  # a class with slots is there twice
    assert kinds == {kind.__qualname__ for kind in FORMS} == {type(value).__qualname__ for value, _ in VALUES.values()}


@each
def test_a_value_is_saved_by_its_suffix(name: str, tmp_path: Path) -> None:
    value, page = VALUES[name]
    assert value.save(tmp_path / "report.html") == tmp_path / "report.html"
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page(value)
    value.save(str(tmp_path / "report.md"))
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == markdown_text(value)
    value.save(tmp_path / "report.JSON")
    assert json.loads((tmp_path / "report.JSON").read_text(encoding="utf-8"))["provenance"] == value_provenance(value)


def value_provenance(value: SavableDisplay) -> object:
    """The provenance as JSON keeps it."""
    return json.loads(json.dumps(getattr(value, "provenance"), default=str))  # noqa: B009 (no field of the base class)


def test_a_saved_evaluation_can_be_compared(tmp_path: Path) -> None:
    made, _ = VALUES["evaluation"]
    path = made.save(tmp_path / "e.json")
    assert [evaluation_json(run.evaluation) for run in quantkit.compare([path, made]).runs] == [
        evaluation_json(made)
    ] * 2


def test_what_exists_is_kept(tmp_path: Path) -> None:
    made, page = VALUES["evaluation"]
    path = tmp_path / "report.html"
    path.write_text("mine")
    with pytest.raises(StaleError, match="another path= keeps both; force=True replaces it"):
        made.save(path)
    assert path.read_text() == "mine"
    made.save(path, force=True)
    assert path.read_text(encoding="utf-8") == page(made)


@pytest.mark.parametrize("name", ["report", "report.pdf", "report.html.gz", "."])
def test_another_suffix_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"names no format of a report\n  → name it .*report.*\.html \(a page\)"):
        VALUES["evaluation"][0].save(name)
    with pytest.raises(UsageError, match="path is of type int, not a path"):
        VALUES["evaluation"][0].save(3)
    with pytest.raises(OutputError, match="there is no folder none"):
        VALUES["evaluation"][0].save("none/report.html")
    assert list(tmp_path.iterdir()) == []
