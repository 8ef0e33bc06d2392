"""--markdown: what a reader of GitHub's Markdown sees is what the value says, whatever the names in it are."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quantkit.cli import invoke
from quantkit.project.run import Run
from quantkit.report.markdown import markdown_lines, markdown_text
from quantkit.tuning.result import Tuning
from quantkit.view import Remarks, RichDisplay, ViewTable, join_lines
from tests.cli.test_options import COMMANDS
from tests.support.networks import BUNDLED, Command

markdown_it = pytest.importorskip("markdown_it")

NAMES = st.text(st.sampled_from("aZ09 _*`|\\[](){}<>&~$#+-.=!:/\n@^\"'é"), max_size=12) | st.text(max_size=8)
WITH = sorted(name for name, command in COMMANDS.items() if any("--markdown" in p.opts for p in command.params))


def read(text: str) -> tuple[list[list[str]], list[str]]:
    """The rows of all tables, and the paragraphs and list entries, as a reader of GitHub's Markdown sees them.

    Every inline token is text alone: nothing became a link, emphasis, code or HTML.
    """
    parser = markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"])
    rows: list[list[str]] = []
    others, kinds = [], []
    for token in parser.parse(text):
        if token.type == "tr_open":
            rows.append([])
        if token.type == "inline":
            assert {child.type for child in token.children} <= {"text", "text_special"}, token.children
            seen = "".join(child.content for child in token.children)
            (rows[-1] if kinds[-1] in ("th_open", "td_open") else others).append(seen)
        kinds.append(token.type)
    assert set(kinds) <= {"inline", *(f"{tag}_{end}" for tag in TAGS for end in ("open", "close"))}, kinds
    return rows, others


TAGS = ("table", "thead", "tbody", "tr", "th", "td", "paragraph", "bullet_list", "list_item")


@given(st.lists(st.tuples(NAMES, NAMES.map(lambda text: f"{text}x")), min_size=1, max_size=4))
@example([("_a_", "**b**|`c`"), ("a_b", "<b>&amp;~~d~~"), ("[x](y)", "$e$ \\| f")])
def test_cells_read_as_they_are(cells: list[tuple[str, str]]) -> None:
    table = ViewTable(("name", "what"), cells, frozenset({0, 1}))
    rows, others = read("\n".join(markdown_lines(table)))
    assert rows == [["name", "what"], *([join_lines(one), join_lines(two)] for one, two in cells)]
    assert others == []


@given(NAMES.filter(join_lines), st.lists(NAMES.filter(join_lines), max_size=3))
@example("# no heading", ["- no list", "1. none", "=", "+ 2", "2) x", "---"])
def test_sentences_read_as_they_are(sentence: str, remarks: list[str]) -> None:
    lines = [*markdown_lines(sentence), "", *markdown_lines(Remarks(remarks))]
    assert read("\n".join(lines)) == ([], [join_lines(text) for text in (sentence, *remarks)])


class Shown(RichDisplay):
    """A value with one long table and many remarks."""

    def _view_(self) -> tuple[ViewTable, Remarks]:
        return ViewTable(("name", "n"), [(f"t{i}", str(i)) for i in range(300)]), Remarks(["yes"] * 60)


def test_a_long_table_says_how_many_rows_are_left() -> None:
    rows, others = read(markdown_text(Shown(), rows=7))
    assert len(rows) == 8
    assert others == ["… 293 more (--json lists all)", *["yes"] * 50, "… 10 more (--json lists all)"]
    assert "| --- | ---: |\n" in markdown_text(Shown())


def test_tune_and_run_have_a_view() -> None:
    """They take too long to be run here; `Printing.print_result` prints only such values."""
    assert issubclass(Run, RichDisplay)
    assert issubclass(Tuning, RichDisplay)
    assert [
        f"quantkit {verb}"
        for verb in (
            "bench",
            "compare",
            "compile",
            "doctor",
            "evaluate",
            "inspect",
            "layers",
            "lint",
            "map",
            "run",
            "table diff",
            "tune",
        )
    ] == WITH


@pytest.fixture
def quantized(place: Path, quantkit_command: Command) -> Path:
    """The working directory with statistics, two tables and a Q/DQ model."""
    quantkit_command("calibrate", "net/model.onnx", "--data", "imgs", "--rule", "entropy,mse", "--quiet", folder=place)
    quantkit_command("quantize", "net/model.onnx", "--quiet", folder=place)
    return place


def test_commands_print_markdown_alone(quantized: Path, capfd: pytest.CaptureFixture[str]) -> None:
    calls = [
        ["evaluate", "net/model.onnx", "net/model.int8.onnx", "--data", "imgs", "--output", "e.json"],
        ["compare", "e.json", "e.json"],
        ["layers", "net/model.onnx", "--data", "imgs", "--top", "3"],
        ["lint", "net/model.int8.onnx"],
        ["bench", "net/model.onnx", "--batch", "1", "--seconds", "0.01"],
        ["table", "diff", "net/model.calib", "net/model.mse.calib"],
        ["inspect", "net/model.onnx"],
        ["doctor"],
    ]
    for call in calls:
        assert invoke([*call, "--markdown"]) == 0, call
        rows, others = read(capfd.readouterr().out)
        assert others, call
        assert len(rows) > 1 or call[0] == "lint", call
        if call[0] == "layers":
            assert len(rows) == 2 * (1 + 3)


def test_two_forms_at_once_are_refused(quantkit_command: Command) -> None:
    done = quantkit_command("inspect", BUNDLED / "model.onnx", "--json", "--markdown", code=2)
    assert json.loads(done.stdout)["error"]["remedy"] == "give one of them"


def test_the_option_is_one() -> None:
    texts = {p.help for name in WITH for p in COMMANDS[name].params if "--markdown" in p.opts}
    assert len(texts) == 1
    assert isinstance(COMMANDS["quantkit evaluate"], click.Command)
