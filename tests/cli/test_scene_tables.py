"""Tables of changed objects and regions keep to 80 characters, and show what drops beyond chance."""

from __future__ import annotations

from dataclasses import replace
from math import nan

import pytest

from quantkit.cli.terminal.scene_tables import SHOWN, print_scene_tables
from quantkit.evaluation.object_changes import PrecisionChange
from tests.evaluation.test_object_changes import MODEL, OBJECTS, REGIONS

SURE = PrecisionChange("a long name of a class", 12345, 0.5, 0.25, 25.0, 12.5, 37.5, 0.75, 0.5)
UNSURE = PrecisionChange("unsure", 3, 0.5, 0.25, 25.0, -1.0, 51.0, 0.75, 0.5)


def printed(capsys: pytest.CaptureFixture[str], **changes: object) -> str:
    print_scene_tables(replace(MODEL, **changes), " of b.onnx")  # type: ignore[arg-type]
    text = capsys.readouterr().out
    assert all(len(line) <= 80 for line in text.splitlines())
    return text


def test_classes_are_shown_that_drop_beyond_their_interval(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, objects=replace(OBJECTS, classes=(SURE,) * (SHOWN + 2) + (UNSURE,)))
    assert text.count(SURE.name) == SHOWN
    assert "+25.00  +12.50 … +37.50" in text
    assert "… 2 more" in text
    assert "unsure" not in text
    assert "1 image of b.onnx with lost or new objects" in text
    assert text.splitlines()[-1].split() == ["a.jpg", "1", "0"]


def test_images_are_shown_that_change(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, regions=REGIONS)
    assert text.splitlines()[-1].split() == ["a.jpg", "50.00%"]
    assert printed(capsys) == ""
    calm = replace(REGIONS, maps=(), classes=(replace(REGIONS.classes[0], low=nan),))
    assert printed(capsys, regions=calm) == ""
