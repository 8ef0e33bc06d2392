"""Pictures of README and pages: the recording is the README's own blocks, and no picture loads or runs anything."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
RECORDING = IMAGES / "terminal.svg"


def load(name: str, folder: str = "docs") -> ModuleType:
    """A module of docs/, which is no package, or of the repository's root."""
    spec = importlib.util.spec_from_file_location(name, ROOT / folder / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pictures = load("pictures")


def test_the_recording_is_current(request: pytest.FixtureRequest) -> None:
    drawn = pictures.terminal_svg((ROOT / "README.md").read_text("utf-8"))
    if request.config.getoption("--regen"):
        RECORDING.write_text(drawn, "utf-8")
    assert RECORDING.read_text("utf-8") == drawn, "run `pytest --regen tests/docs/test_pictures.py` and look at it"


def test_the_recording_shows_commands_and_their_output() -> None:
    root = ElementTree.fromstring(RECORDING.read_text("utf-8"))
    lines = ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert [line.split()[2] for line in lines if line.startswith("$ ")] == list(pictures.SHOWN)
    assert all(len(line) <= pictures.COLUMNS for line in lines)
    assert lines == [line for line in pictures.recorded((ROOT / "README.md").read_text("utf-8")) if line]


@pytest.mark.parametrize("path", sorted(IMAGES.glob("*.svg")), ids=lambda path: path.name)
def test_drawings_are_small_and_load_nothing(path: Path) -> None:
    text = path.read_text("utf-8")
    ElementTree.fromstring(text)
    assert len(text) < 20_000
    assert not re.search(r"<script|<foreignObject|href|url\(|@import|\bon\w+=", text)


@pytest.mark.parametrize("path", sorted(IMAGES.glob("*.png")), ids=lambda path: path.name)
def test_photos_are_small_and_have_a_dark_side(path: Path) -> None:
    assert path.stat().st_size < 120_000
    other = path.with_name(path.name.replace("-dark", "") if "-dark" in path.name else f"{path.stem}-dark.png")
    with Image.open(path) as one, Image.open(other) as two:
        assert one.size == two.size


def test_every_picture_is_shown_and_has_a_text() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    shown = [
        found
        for page in pages
        for found in re.findall(r"!\[([^]]*)\]\(\S*images/([\w-]+\.\w+)\)", page.read_text("utf-8"))
    ]
    assert all(len(alt) > 20 for alt, _ in shown)
    names = {name for _, name in shown} | {"logo.svg", "favicon.svg"}
    assert {path.name for path in IMAGES.iterdir() if "-dark" not in path.name} == names


def test_a_picture_is_shown_in_both_modes() -> None:
    pages = load("pages")
    drawn = pages.PICTURE.sub(pages.both_modes, "![a](images/report.png) ![b](images/none.png)")
    assert drawn == "![a](images/report.png#only-light)![a](images/report-dark.png#only-dark) ![b](images/none.png)"


def test_a_package_index_gets_links_that_lead_somewhere() -> None:
    pytest.importorskip("setuptools")
    shown = load("setup", ".").index_readme
    text = "![a picture](docs/a.svg) and [a `page`](docs/b.md#c), [elsewhere](https://example.org), `[1]`"
    assert shown(text, None, "v1") == " and a `page`, [elsewhere](https://example.org), `[1]`"
    there = shown(text, "https://example.org/r/", "v1")
    assert there.startswith(
        "![a picture](https://example.org/r/raw/v1/docs/a.svg) and [a `page`](https://example.org/r/blob/v1/"
    )
    readme = (ROOT / "README.md").read_text("utf-8")
    assert not re.search(r"\]\((?!https:)", shown(readme, None, "v1"))


def test_links_lead_to_their_places_in_the_site() -> None:
    turned = load("pages").turned
    assert turned("../benchmarks/results/accuracy.md", "faq.md") == "results/accuracy.md"
    assert turned("../skills/quantkit/SKILL.md", "automate.md") == "skill.md"
    assert turned("run.md", "faq.md") == "run.md"
