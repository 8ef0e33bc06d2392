"""Texts for people are plain sentences in the words of the field, and the same word means the same thing everywhere."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORDS = {
    r"mend(s|ed|ing|able)?": "fix",
    r"told": "say, report, or the message itself",
    r"processors?": "CPU",
    r"operator sets?": "opset",
    r"answers?": "prediction",
    r"whole way": "end to end",
}
"""Word → the word that is used instead."""
FORBIDDEN = re.compile(rf"(?<![\w/.-])({'|'.join(WORDS)})(?!\w)", re.IGNORECASE)
OPENING = re.compile(r"(Of|What|Whether)\b")
CODE = sorted((ROOT / "quantkit").rglob("*.py"))
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "calibration_data").glob("*.md")]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def sentences(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of everything in a Python file that a person reads: docstrings, messages, comments, and names."""
    text = path.read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), 1):
        yield number, line.replace("_", " ")


def found_in(lines: Iterator[tuple[int, str]]) -> list[str]:
    """Every word that should be another one."""
    return [
        f"{number}: {match[0]!r} in {text.strip()!r}" for number, text in lines for match in FORBIDDEN.finditer(text)
    ]


def by_file(found: Callable[[Path], list[str]]) -> dict[str, list[str]]:
    """Return file → what is found in it, of the files of the package in which anything is."""
    return {path.relative_to(ROOT).as_posix(): faults for path in CODE if (faults := found(path))}


def test_code_uses_the_words_of_the_field() -> None:
    assert CODE
    assert not by_file(lambda path: found_in(sentences(path)))


def bad_openings(path: Path) -> list[str]:
    """The docstrings of a file that begin with another word than a noun or a verb."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, documented))
    opened = [(node, ast.get_docstring(node) or "") for node in nodes]
    return [f"{getattr(n, 'name', 'module')}: {text.splitlines()[0]}" for n, text in opened if OPENING.match(text)]


def test_docstrings_begin_with_a_noun_or_a_verb() -> None:
    assert not by_file(bad_openings)


@pytest.mark.parametrize("path", sorted(PAGES), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_pages_use_the_words_of_the_field(path: Path) -> None:
    assert not found_in(iter(enumerate(path.read_text(encoding="utf-8").splitlines(), 1)))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_notebooks_use_the_words_of_the_field(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert not found_in((number, line) for number, cell in enumerate(cells, 1) for line in cell["source"])
