"""Repairs are listed once: help texts, error messages and the page follow the registry."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from quantkit.cli.application import app
from quantkit.errors import UsageError
from quantkit.project.settings import settings_template
from quantkit.repairs.registry import (
    REPAIR_NAMES,
    REPAIRS,
    from_statistics_alone,
    needs_data,
    parse_repairs,
    resolve_repairs,
    without_rescaling,
    without_rounding,
)
from quantkit.repairs.repair import Needs, RepairOutcome

PAGE = Path(__file__).parents[2] / "docs" / "quantize.md"


def test_the_page_describes_every_repair_in_order() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    known = {repair.name: repair.summary for repair in REPAIRS}
    assert [(name, text) for name, text in rows if name in known] == list(known.items())


@pytest.mark.parametrize("command", ["quantize", "run", "tune"])
def test_help_lists_every_repair(command: str) -> None:
    (option,) = (p for p in app.commands[command].params if p.name == "repair")
    assert all(name in option.help for name in REPAIR_NAMES)


def test_the_settings_list_every_repair() -> None:
    assert f"any of {', '.join(REPAIR_NAMES)};" in settings_template("m.onnx", "data")


def test_names_are_ordered_and_known() -> None:
    assert parse_repairs("bias, round") == ("round", "bias")
    assert parse_repairs("none") == ()
    with pytest.raises(UsageError, match="unknown repair 'nope'") as caught:
        parse_repairs("bias,nope")
    assert ", ".join(REPAIR_NAMES) in str(caught.value.remedy)


def test_selections_go_by_properties() -> None:
    for selected, kept in (
        (from_statistics_alone(), lambda repair: repair.needs is Needs.STATISTICS),
        (without_rescaling(), lambda repair: not repair.rescales),
        (without_rounding(), lambda repair: not repair.rounds_weights),
    ):
        assert selected == tuple(repair.name for repair in REPAIRS if kept(repair))
    assert not needs_data(from_statistics_alone())
    assert all(needs_data([repair.name]) == (repair.needs is Needs.DATA) for repair in REPAIRS)
    assert resolve_repairs(None, statistics=True, data=False) == from_statistics_alone()
    assert resolve_repairs(None, statistics=True, data=True) == REPAIR_NAMES
    assert resolve_repairs(None, statistics=False, data=False) == ()


def test_what_rescales_needs_data() -> None:
    """Statistics are collected again after it."""
    assert all(repair.needs is Needs.DATA for repair in REPAIRS if repair.rescales)


@pytest.mark.parametrize(
    ("gains", "skipped", "text"),
    [
        ({}, {}, "no biases corrected"),
        ({"a": 1.0, "b": 2.0}, {}, "2 biases corrected, 1.5 dB in the median (predicted)"),
        ({"a": 1.0}, {"b": "x"}, "1 biases corrected, 1.0 dB in the median (predicted); 1 left: x"),
        ({}, {"b": "x", "c": "y", "d": "y"}, "no biases corrected; 3 left, mostly: y"),
    ],
)
def test_a_report_is_one_sentence(gains: dict[str, float], skipped: dict[str, str], text: str) -> None:
    (bias,) = (repair for repair in REPAIRS if repair.name == "bias")
    assert bias.report(RepairOutcome(None, gains, skipped)).text == text  # type: ignore[arg-type]
