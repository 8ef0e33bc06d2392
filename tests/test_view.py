"""What values show in notebooks: few lines, everything escaped, the same as HTML and as plain text."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import quantkit
from quantkit.evaluation.comparison import Comparison, EvaluationRun
from quantkit.evaluation.result import Device, Evaluation, Speed
from quantkit.linting.lint import LintReport
from quantkit.table import Algorithm, Coverage, Header
from quantkit.view import CELL, LINES, Remarks, RichDisplay, ViewTable, block_html, block_lines
from tests.support.reports import (
    EVALUATIONS,
    SENSITIVITIES,
    TEXTS,
    bench,
    candidate,
    evaluation,
    sensitivity,
    statistics,
)

ROOT = Path(quantkit.__file__).parent
TAGS = {"p", "table", "thead", "tbody", "tr", "th", "td", "ul", "li"}
SMALL = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


class Reader(HTMLParser):
    """Tags that are open, and the cells of every table row."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS
        assert {name for name, _ in attrs} <= {"style", "colspan"}
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def table_of(names: list[str]) -> quantkit.CalibrationTable:
    """A table with these tensors."""
    return quantkit.CalibrationTable(Header(Algorithm.ENTROPY_2, 100300), dict.fromkeys(names, 0.5))


@SMALL
@given(TEXTS, TEXTS, st.integers(0, 40))
def test_whatever_a_cell_holds_is_text(first: str, second: str, count: int) -> None:
    table = ViewTable((first, "second"), [(second, first)] * count)
    blocks: list[Any] = [first, table, Remarks([second, first])]
    read = Reader("".join(map(block_html, blocks)))
    assert len(read.rows) == (1 + min(count, LINES) if count else 0)
    for block in blocks:
        for line in block_lines(block):
            assert "\n" not in line
            line.encode()
    assert all(len(line) <= 2 * CELL + 2 for line in block_lines(table))


@given(st.integers(1, 500))
def test_a_long_table_says_how_many_there_are_more(count: int) -> None:
    table = ViewTable(("name", "n"), [(f"t{i}", str(i)) for i in range(count)])
    assert len(table.shown) + (1 if table.more else 0) <= LINES
    assert len(table.shown) + int(table.more.strip("… more").replace(",", "") or 0) == count
    assert (table.more == "") == (count <= LINES)
    assert len(block_lines(table)) == 1 + min(count, LINES)
    assert len(block_lines(Remarks(["yes"] * count))) == min(count, LINES)


def test_columns_without_figures_are_left_out() -> None:
    table = ViewTable(("", "full", "empty"), [("", "1", ""), ("", "", "")])
    assert Reader(block_html(table)).rows == [["", "full"], ["", "1"], ["", ""]]


def test_numbers_end_at_the_right() -> None:
    assert block_lines(ViewTable(("a", "b", "c"), [("long", "5", "x"), ("s", "100", "yy")], frozenset({0, 2}))) == [
        "a       b  c",
        "long    5  x",
        "s     100  yy",
    ]


@SMALL
@given(EVALUATIONS, SENSITIVITIES)
def test_whatever_was_found_can_be_shown(made: Evaluation, found: Any) -> None:
    runs = (EvaluationRun("<a>", made), EvaluationRun("b", made))
    for value in (made, found, Comparison(runs, made.metric, made.share, (), made.notes)):
        shown = value._repr_mimebundle_()
        Reader(shown["text/html"])
        assert len(shown["text/plain"].encode().splitlines()) <= 3 * LINES + 12


@pytest.mark.parametrize(
    "value",
    [
        table_of(["<b>", *(f"layer{i}" for i in range(300))]),
        statistics({f"<b>{i}": [1.0, -2.0] for i in range(300)}),
        evaluation(*(candidate(f"<b>{i}") for i in range(300))),
        sensitivity(*(f"<b>{i}" for i in range(300))),
        bench(),
        LintReport(
            Path("<b>.onnx"), tuple(quantkit.Finding("uint8", "error", f"<b>{i}", "wrong", "mend") for i in range(300))
        ),
        Coverage(("<b>",), tuple(f"<b>{i}" for i in range(300)), ()),
        quantkit.diff(table_of(["<b>", "b"]), table_of(["b", "c"])),
        quantkit.doctor(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_are_few_lines(value: RichDisplay) -> None:
    read = Reader(value._repr_html_())
    tables = sum(isinstance(block, ViewTable) and bool(block.rows) for block in value._view_())
    assert 1 <= tables <= 2
    assert len(read.rows) <= tables * (LINES + 1)
    shown = value._repr_mimebundle_()["text/plain"]
    assert len(shown.splitlines()) == sum(len(block_lines(block)) for block in value._view_())
    assert str(value) == shown
    assert repr(value).startswith((f"<{type(value).__name__}: ", f"<{type(value).__name__} of "))


def values_with_a_view(kind: type[RichDisplay] = RichDisplay) -> set[type[RichDisplay]]:
    """The classes of values that have a rich display."""
    for name in quantkit.__all__:
        getattr(quantkit, name)
    found = set(kind.__subclasses__())
    return found | {inner for outer in found for inner in values_with_a_view(outer)}


def test_no_value_prints_its_fields() -> None:
    kinds = values_with_a_view()
    assert quantkit.Calibration in kinds
    assert all(kind.__repr__ is RichDisplay.__repr__ and kind.__str__ is RichDisplay.__str__ for kind in kinds)


@given(TEXTS, st.integers(0, 1000))
def test_a_repr_is_under_ten_lines(title: str, count: int) -> None:
    class Shown(RichDisplay):
        def _view_(self) -> Any:
            return title * count, ViewTable(("a",), [(title,)] * count)

    assert len(repr(Shown())) <= 9 * 80
    assert len(repr(Shown()).splitlines()) == 1


@pytest.mark.parametrize("name", [name for name in quantkit.__all__ if name.endswith(("Options", "Settings"))])
def test_options_are_under_ten_lines(name: str) -> None:
    assert len(repr(getattr(quantkit, name)())) <= 10 * 80


def test_settings_show_what_differs_from_the_defaults() -> None:
    assert repr(quantkit.Settings()) == "Settings()"
    assert repr(quantkit.Settings(model="a.onnx", calibrate={"limit": 8})) == (
        "Settings(model='a.onnx', calibrate=CalibrateSettings(limit=8))"
    )


def test_cpu_speed_is_not_shown_next_to_gpu_speed() -> None:
    here = Speed(51234.0, None, 32, "onnxruntime, CPU", Device.CPU)
    assert "97,123" in evaluation(candidate())._repr_html_()
    assert "51,234" not in evaluation(candidate(speed=here))._repr_html_()


def test_there_is_one_place_that_writes_html() -> None:
    found = [path for path in ROOT.rglob("*.py") if "def _repr_html_" in path.read_text(encoding="utf-8")]
    assert found == [ROOT / "view.py"]
    for path in ROOT.rglob("*.py"):
        assert "<td" not in path.read_text(encoding="utf-8") or path == ROOT / "view.py"
