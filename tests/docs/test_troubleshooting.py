"""What the pages say that quantkit says stands in its code: cells of tables under the head `quantkit says`."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "docs" / name for name in ("troubleshooting.md", "why-not-int8.md")]
GAP = "…"


def text_of(node: ast.AST) -> str | None:
    """A string of the code, with a gap for every value in it; None for other nodes."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else GAP for part in node.values)
    return None


@cache
def strings() -> tuple[str, ...]:
    """Every string in quantkit that is no docstring."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "quantkit").rglob("*.py"))]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    standing_alone = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    return tuple(text for node in nodes if id(node) not in standing_alone and (text := text_of(node)))


def in_code(message: str) -> bool:
    """Whether some string of the code is `message`, or holds its parts in this order."""
    parts = [re.escape(part.strip()) for part in message.split(GAP) if part.strip(" ()")]
    pattern = re.compile(".*".join(parts), re.DOTALL)
    return any(pattern.search(text) for text in strings())


def messages(page: Path) -> list[str]:
    """The messages in the first column of tables whose head is `quantkit says`."""
    text = page.read_text(encoding="utf-8")
    tables = re.findall(r"^\| quantkit says \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    cells = [line.split(" | ")[0] for rows in tables for line in rows.splitlines()]
    return [message for cell in cells for message in re.findall(r"`([^`]+)`", cell)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_messages_on_the_page_are_quantkits(page: Path) -> None:
    found = messages(page)
    assert len(found) >= 9
    assert [message for message in found if not in_code(message)] == []


def test_a_message_that_nobody_says_is_seen() -> None:
    assert in_code("the GPU has no … MiB left (…)")
    assert not in_code("the GPU has no … GiB left")
    assert not in_code("MiB left … the GPU has no")
    assert not in_code("Every string in quantkit that is no docstring.")
