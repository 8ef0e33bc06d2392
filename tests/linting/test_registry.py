"""Rules register themselves: their file is named after them, and the page lists them as they describe themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from quantkit.linting import rules
from quantkit.linting.registry import lint_rules
from quantkit.linting.rule import LintRule

PAGE = Path(__file__).parents[2] / "docs" / "lint.md"
FOLDER = Path(rules.__file__).parent


def test_every_rule_has_a_file_of_its_name() -> None:
    files = {path.stem for path in FOLDER.rglob("*.py")} - {"__init__"}
    assert {rule.name.replace("-", "_") for rule in lint_rules()} == files


def test_the_page_lists_every_rule_once() -> None:
    text = PAGE.read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([\w-]+)` \|", text[text.index("## Rules") :], re.MULTILINE)
    assert listed == [rule.name for rule in lint_rules()]


@pytest.mark.parametrize("rule", lint_rules(), ids=lambda rule: rule.name)
def test_the_page_describes_a_rule_as_it_describes_itself(rule: LintRule) -> None:
    (row,) = (line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{rule.name}` |"))
    _, _, severity, why, fix, _ = (cell.strip() for cell in row.split("|"))
    assert severity == rule.severity
    assert why.startswith(rule.summary)
    assert fix.startswith(rule.fix_summary)
    assert fix.startswith("no") == (rule.fix is None)
    assert rule.tensorrt in row
