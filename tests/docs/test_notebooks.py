"""Every notebook runs from top to bottom on the bundled data, and is kept with its outputs.

What is stored is what comes out again, but for digits that the libraries' versions may change: numbers are compared as
far as a sample more or less allows. `pytest --regen` stores what comes out.
"""

from __future__ import annotations

import base64
import io
import json
import re
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import quantkit

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
SECONDS = 60
ENGINES = "build and run engines"
ROUGH = {"04_detector"}
"""Notebooks that count objects above a score: where one is lost or found, several figures move."""
NUMBER = re.compile(r"[-+−]?\d[\d,]*(?:\.\d+)?(?:e[-+]\d+)?")
PRIVATE = re.compile(r"/(?:home|root|tmp|work|Users|usr|var)\b|0x[0-9a-f]{6,}")
KINDS = {"text/plain", "text/html", "image/svg+xml", "image/png"}
DRAWINGS = {"image/svg+xml", "image/png"}
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def executed(path: Path) -> Any:
    """A notebook as it comes out when it is run anew, without what differs from run to run."""
    notebook = nbformat.read(path, as_version=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the notebook machinery, not of the notebook
        where = {"metadata": {"path": str(FOLDER)}}
        # what a cell prints comes in as many pieces as the time of day decides
        client = nbclient.NotebookClient(notebook, timeout=10 * SECONDS, resources=where, coalesce_streams=True)
        client.execute()
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = {}
    return notebook


def with_engines(notebook: Any) -> bool:
    """Whether it builds engines, here."""
    able = {ability.what: ability.able for ability in quantkit.doctor().abilities}
    return able[ENGINES] and any(ENGINES in cell.source for cell in code(notebook))


def code(notebook: Any) -> list[Any]:
    """The cells of code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(notebook: Any) -> list[tuple[str, str]]:
    """Kind and text of all that the cells show."""
    found = []
    for cell in code(notebook):
        for output in cell.outputs:
            if output.output_type == "stream":
                found.append((output.name, output.text))
            else:
                found += sorted(output.get("data", {}).items())
    return found


def alike(kept: str, fresh: str, rough: bool = False) -> bool:
    """Whether two texts are the same words, and numbers that are close; rough: a tenth, or two objects or points."""
    if NUMBER.sub("#", kept) != NUMBER.sub("#", fresh):
        return False
    pairs = zip(NUMBER.findall(kept), NUMBER.findall(fresh), strict=True)
    return all(close(a, b) or (rough and near(a, b)) for a, b in pairs)


def near(kept: str, fresh: str) -> bool:
    """Whether two numbers are a tenth or 2 apart at most."""
    one, two = (float(text.replace(",", "").replace("−", "-")) for text in (kept, fresh))
    return abs(one - two) <= max(0.1 * abs(one), 2.0)


def close(kept: str, fresh: str) -> bool:
    """Whether two numbers are 2 % apart at most, or a sample of 200 more or less, which is half a point."""
    one, two = (float(text.replace(",", "").replace("−", "-")) for text in (kept, fresh))
    if few_digits(kept) and min(one, two) > 100.0:
        return True  # decibels of nothing but rounding
    return abs(one - two) <= max(0.02 * abs(one), 0.6 if few_digits(kept) else 0.0)


def few_digits(text: str) -> bool:
    """Whether a number is told as shares, points and decibels are."""
    return 1 <= len(text.partition(".")[2]) <= 2


@each
def test_a_notebook_shows_what_it_shows_when_it_runs(path: Path, request: pytest.FixtureRequest) -> None:
    started = time.monotonic()
    fresh = executed(path)
    assert time.monotonic() - started < SECONDS or with_engines(fresh)
    if request.config.getoption("--regen") and not with_engines(fresh):
        text = json.dumps(fresh, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        path.write_text(text, encoding="utf-8")
    if with_engines(fresh):
        pytest.skip("it ran; what it shows of the engines of this GPU is not what is kept")
    kept = nbformat.read(path, as_version=4)
    assert [kind for kind, _ in shown(kept)] == [kind for kind, _ in shown(fresh)]
    for (kind, before), (_, now) in zip(shown(kept), shown(fresh), strict=True):
        # A drawing is compared by its words, which are beside it: pixels are none of a reader's business.
        same = kind in DRAWINGS or alike(before, now, path.stem in ROUGH)
        assert same, "run `pytest --regen` and read the diff"


@each
def test_a_notebook_is_kept_as_it_was_run_from_top_to_bottom(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = code(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert all(cell.outputs for cell in cells if cell.source.splitlines()[-1].isidentifier())
    assert notebook.metadata == METADATA
    assert not any(cell.metadata for cell in notebook.cells)


@each
def test_what_a_notebook_shows_is_for_readers(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    found = shown(notebook)
    assert found
    for kind, text in found:
        assert kind in KINDS | {"stdout"}, "a warning, an error, or what no code host shows"
        if kind == "image/png":
            assert len(text) < 80_000
            continue
        assert not PRIVATE.search(text)
        assert len(text) < 30_000
        assert "<script" not in text
        if kind in ("text/plain", "stdout"):
            assert len(text.splitlines()) <= 60
    assert not any(output.output_type == "error" for cell in code(notebook) for output in cell.outputs)
    assert path.stat().st_size < 200_000


@each
def test_every_chart_is_seen_before_a_notebook_is_trusted(path: Path) -> None:
    drawn = [
        output.data
        for cell in code(nbformat.read(path, as_version=4))
        for output in cell.outputs
        if DRAWINGS & set(output.get("data", {}))
    ]
    if path.stem != "01_calibrate":
        assert drawn
    for data in drawn:
        with Image.open(io.BytesIO(base64.b64decode(data["image/png"]))) as image:
            assert image.format == "PNG"
            assert len(image.convert("RGB").getcolors(1 << 20)) > 20, "nothing is drawn"


@each
def test_a_notebook_explains_itself(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert notebook.cells[0].source.startswith("# ")
    for before, cell in zip(notebook.cells, notebook.cells[1:], strict=False):
        assert cell.cell_type == "markdown" or before.cell_type == "markdown", (
            "two cells of code without a word between"
        )
        assert all(len(line) <= (100 if cell.cell_type == "code" else 120) for line in cell.source.splitlines())


def test_numbers_may_move_a_little() -> None:
    assert alike("top1 98.50% and 35.8 dB, −0.5", "top1 98.50% and 35.9 dB, −0.5")
    assert not alike("35.8 dB", "34.8 dB")
    assert alike("a loss of 1,234 of 5.00 points at 138.5 dB", "a loss of 1,235 of 5.50 points at 151.2 dB")
    assert not alike("200 images", "100 images")
    assert not alike("scale 0.0075", "scale 0.0080")
    assert not alike("35.8 dB", "35.8")
    assert not alike("mse 1.0", "entropy 1.0")
    assert not alike("4 lost", "5 lost")
    assert alike("4 lost", "5 lost", rough=True)
    assert not alike("40 lost", "50 lost", rough=True)
