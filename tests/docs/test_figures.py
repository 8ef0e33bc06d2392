"""Measured figures on the pages are those of the files that they cite; `pytest --regen` puts the measured ones in.

In a sentence a figure is a link with a label, and the end of the page names the file, and the place in it:

    FP16 takes [0.148 ms][f1].

    [f1]: ../benchmarks/results/gpu_acceptance.json "explicit/figures/resnet20/fp16/latency_ms/32/graph"

Above a table a comment names the file and the place of every column but the first, which holds the `{row}`:

    <!-- figures gpu_acceptance.json
    resnet20/figures/engines/{row}/top1
    -->

A part `key=value,key=value` of a place picks those entries of a list (`None`: without the key); of several numbers the
median is meant.
"""

from __future__ import annotations

import json
import re
import statistics
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = sorted(ROOT.glob("docs/*.md"))
LINKED = re.compile(r"\[([^]]+)\]\[(f\d+)\]")
PLACE = re.compile(r"^\[(f\d+)\]: \.\./benchmarks/results/([\w.-]+\.json) \"([^\"]+)\"$", re.MULTILINE)
TABLE = re.compile(r"<!-- figures ([\w.-]+\.json)\n(.*?)-->\n\n((?:\|[^\n]*\n)+)", re.DOTALL)
NUMBER = re.compile(r"[-−]?\d[\d,]*(?:\.\d+)?")
MEASURE = re.compile(r"\d (?:ms|dB|points|MiB)\b")


@cache
def document(name: str) -> Any:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def figure(name: str, place: str) -> float:
    """The number at a place of a result file; the median where there are several."""
    found: Any = document(name)
    for part in place.split("/"):
        if not isinstance(found, list):
            found = found[part]
        elif "=" in part:
            wanted = dict(pair.split("=") for pair in part.split(","))
            found = [entry for entry in found if all(str(entry.get(key)) == value for key, value in wanted.items())]
        else:
            found = [entry[part] for entry in found]
    return statistics.median(found) if isinstance(found, list) else found


def written(text: str, name: str, place: str) -> str:
    """The text with the measured number in place of its own, with as many decimals."""
    shown = NUMBER.search(text)
    assert shown is not None, f"{text!r} holds no number"
    share = "%" in text and name == "gpu_acceptance.json"
    decimals = len(shown[0].partition(".")[2])
    number = f"{figure(name, place) * (100 if share else 1):{',' if ',' in shown[0] else ''}.{decimals}f}"
    if float(number.replace(",", "")) == 0:
        number = number.lstrip("-")
    return text[: shown.start()] + number.replace("-", "−") + text[shown.end() :]


def row(line: str, name: str, places: list[str]) -> str:
    """A line of a table with the measured numbers."""
    first, *cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
    assert len(cells) == len(places), line
    made = [written(cell, name, place.format(row=first)) for cell, place in zip(cells, places, strict=True)]
    return f"| {' | '.join([first, *made])} |\n"


def table(match: re.Match[str]) -> str:
    """A table with the measured numbers, under its comment."""
    places = match[2].split("\n")[:-1]
    head, rule, *lines = match[3].splitlines(keepends=True)
    return f"<!-- figures {match[1]}\n{match[2]}-->\n\n{head}{rule}{''.join(row(x, match[1], places) for x in lines)}"


def measured(text: str) -> str:
    """A page with the measured numbers."""
    places = {label: (name, place) for label, name, place in PLACE.findall(text)}
    linked = LINKED.sub(lambda m: f"[{written(m[1], *places[m[2]])}][{m[2]}]", text)
    return TABLE.sub(table, linked)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_figures_are_the_measured_ones(page: Path, request: pytest.FixtureRequest) -> None:
    text = page.read_text(encoding="utf-8")
    if request.config.getoption("--regen"):
        page.write_text(measured(text), encoding="utf-8")
    assert page.read_text(encoding="utf-8") == measured(text), "run `pytest --regen` and read the diff"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_figures_and_places_belong_together(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    labels = [label for label, _, _ in PLACE.findall(text)]
    assert len(set(labels)) == len(labels)
    assert {label for _, label in LINKED.findall(text)} == set(labels)
    assert not re.search(r"\.json\s+\"[^\"]*\"\)", text), "a figure's place belongs to the end of the page"


@pytest.mark.parametrize(
    "name", ["concepts.md", "choosing-a-rule.md", "migrate-to-11.md", "why-not-int8.md", "jetson.md"]
)
def test_no_figure_of_a_guide_is_without_its_file(name: str) -> None:
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    bare = TABLE.sub("", LINKED.sub("", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)))
    assert not MEASURE.search(bare), MEASURE.search(bare)


def test_a_wrong_figure_is_seen() -> None:
    place = "resnet20/figures/engines/fp16"
    wrong = f'[0.999 ms][f1]\n\n[f1]: ../benchmarks/results/gpu_acceptance.json "{place}/latency_ms/32/graph"\n'
    right = figure("gpu_acceptance.json", f"{place}/latency_ms/32/graph")
    assert measured(wrong) == wrong.replace("0.999", f"{right:.3f}")
    comment = "<!-- figures gpu_acceptance.json\nresnet20/figures/engines/{row}/top1\n-->"
    page = f"{comment}\n\n| a | b |\n|---|---|\n| fp16 | 1.00 % |\n"
    top1 = figure("gpu_acceptance.json", f"{place}/top1")
    assert measured(page) == page.replace("1.00", f"{100 * top1:.2f}")
    assert figure("calibration.json", "samples/network=resnet20,contestant=quantkit/seconds") > 0
