"""The report of detectors and segmenters: every figure, boxes and regions where they lie, bounded in size."""

from __future__ import annotations

import base64
import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from quantkit.errors import UsageError
from quantkit.evaluation.object_changes import ObjectChanges, RegionChanges, SceneObject, run_lengths
from quantkit.evaluation.result import Evaluation
from quantkit.report.detection.curves import precision_plot
from quantkit.report.detection.inline import precision_chart, scene_chart, shift_chart
from quantkit.report.detection.pictures import (
    BOTH,
    ONLY_CANDIDATE,
    ONLY_REFERENCE,
    OVERLAY,
    ScenePicture,
    class_colour,
    class_map_uri,
    mask_overlay,
    scene_picture,
)
from quantkit.report.detection.scenes import NOTABLE, WIDTH, scene_legend, scene_plot
from quantkit.report.html import evaluation_page
from tests.report.test_html import sound
from tests.support.objects import (
    BOX,
    OBJECT_CHANGES,
    REGION_CHANGES,
    WIDE,
    class_map,
    object_changes,
    region_changes,
    scene,
)
from tests.support.reports import candidate, evaluation

NOTHING = ScenePicture("", "no image file")


def page_of(*objects: ObjectChanges, regions: RegionChanges | None = None) -> str:
    """A page of candidates with these objects."""
    models = [candidate(f"net{i}.onnx", objects=o, classes=(), changed=()) for i, o in enumerate(objects)]
    return evaluation_page(evaluation(*models, *([candidate("seg.onnx", regions=regions)] if regions else [])))


def test_every_figure_of_a_detector_appears() -> None:
    read = sound(page_of(object_changes()))
    expected = """
        triangle | 171 | 70.12 % | 91.31 % | +3.11 (+2.04 … +4.37) ● | 67.01 %, AP50 89.77 % | +0.32 (−0.71 … +1.63)
        small | 201 | 45.21 % | 96.84 % | 95.1 % … 98.1 % | 399 of 412 | 0.957 | −2.91 pp | 41 | street.jpg
        1 class whose interval excludes zero | dog 83 % | cat 64 % → 31 % | bird 50 % | 1 lost, 1 new | 1 label
    """
    for text in re.split(r"\s*[|\n]\s*", expected.strip()):
        assert text in read.text, text
    order = ["Average precision", "Objects found again", "Images that changed most", "Provenance"]
    assert sorted(order, key=read.text.rindex) == order


def test_every_figure_of_a_segmenter_appears() -> None:
    read = sound(page_of(regions=region_changes()))
    for text in ("98.31 %", "98.12 % … 98.49 %", "91.07 %", "road", "60,123", "90.21 %", "+2.18 (+1.71 … +2.83) ●",
                 "88.03 %; 95.11 % with the reference", "95.93 % equal pixels", "labels"):  # fmt: skip
        assert text in read.text, text
    assert "changed pixels" not in read.text
    bare = replace(region_changes().maps[0], label=None)
    assert "changed pixels" in sound(page_of(regions=region_changes(maps=(bare,)))).text


def test_without_labels_there_is_no_precision() -> None:
    text = sound(page_of(object_changes(classes=(), sizes=(), curves=(), scenes=(scene(labels=()),)))).text
    assert "Average precision" not in text
    assert "Objects found again" in text
    assert "label" not in text[text.index("Images that changed most", text.index("found again")) :].partition("Prov")[0]


@given(OBJECT_CHANGES, OBJECT_CHANGES, REGION_CHANGES)
@settings(max_examples=25, deadline=None)
def test_any_objects_make_a_sound_page(one: ObjectChanges, other: ObjectChanges, regions: RegionChanges) -> None:
    sound(page_of(one, other, regions=regions))


# ── boxes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def rectangles(body: str, kind: str) -> list[tuple[float, ...]]:
    """x, y, width and height of the boxes of a kind."""
    pattern = rf'<rect class="{kind}" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"'
    return [tuple(map(float, found)) for found in re.findall(pattern, body)]


def test_boxes_lie_where_the_objects_are() -> None:
    body = "".join(scene_plot(scene(), NOTHING, "net").body)
    scale = WIDTH / WIDE
    expected = pytest.approx((BOX[0] * scale, BOX[1] * scale, 64 * scale, 64 * scale), abs=0.1)
    assert rectangles(body, "box lost") == [expected]
    assert rectangles(body, "box truth") == [expected]
    assert len(rectangles(body, "box both")) == len(rectangles(body, "box both moved")) == 1
    assert rectangles(body, "box new") == [pytest.approx((0.0, 0.0, 20 * scale, 20 * scale), abs=0.1)]


@pytest.mark.parametrize(("change", "written"), [(NOTABLE + 0.01, True), (NOTABLE - 0.01, False)])
def test_scores_are_written_where_they_changed(change: float, written: bool) -> None:
    pair = (SceneObject("cat", BOX, 0.6, 0),), (SceneObject("cat", BOX, 0.6 - change, 0),)
    body = "".join(scene_plot(scene(reference=pair[0], candidate=pair[1]), NOTHING, "net").body)
    assert ("→" in body) == written


@given(st.tuples(st.integers(1, 6000), st.integers(1, 6000)), st.lists(st.floats(-1e4, 1e4), min_size=4, max_size=4))
def test_boxes_stay_inside_the_picture(size: tuple[int, int], box: list[float]) -> None:
    found = replace(scene(reference=(SceneObject("x", (box[0], box[1], box[2], box[3]), 0.5),)), size=size)
    chart = scene_plot(found, NOTHING, "net")
    for x, y, wide, tall in rectangles("".join(chart.body), "box lost"):
        assert x + wide <= chart.width + 1.1
        assert y + tall <= chart.height + 1.1


def test_the_legend_names_labels_only_where_they_are() -> None:
    assert ">label<" in "".join(scene_legend(True).body)
    assert ">label<" not in "".join(scene_legend(False).body)


# ── pictures ────────────────────────────────────────────────────────────────────────────────────────────────────────


def decoded(uri: str) -> np.ndarray:
    """The pixels [H, W, 4] of an embedded PNG."""
    kind, _, content = uri.partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGBA"))


def test_masks_are_coloured_by_who_has_them() -> None:
    left, right = np.zeros((4, 6), np.bool_), np.zeros((4, 6), np.bool_)
    left[:, :3], right[:, 2:5] = True, True
    objects = [(SceneObject("x", BOX, 0.5, mask=run_lengths(mask)),) for mask in (left, right)]
    found = decoded(mask_overlay(*objects))
    for column, kind in enumerate([ONLY_REFERENCE, ONLY_REFERENCE, BOTH, ONLY_CANDIDATE, ONLY_CANDIDATE]):
        assert tuple(found[0, column]) == OVERLAY[kind]
    assert found[0, 5, 3] == 0
    assert mask_overlay((), ()) == ""


def test_maps_have_the_colours_of_their_classes() -> None:
    found, encoded = decoded(class_map_uri(class_map())), class_map().pixels()
    assert found.shape[:2] == encoded.shape
    for code in (0, 1):
        assert {tuple(c) for c in found[encoded == code]} == {(*class_colour(code), 255)}
    assert set(found[encoded == 255][:, 3]) == {0}
    assert len({class_colour(i) for i in range(100)}) == 100


def test_a_report_of_noisy_photographs_is_under_two_megabytes(tmp_path: Path) -> None:
    noise = np.random.RandomState(0).randint(0, 256, (700, 900, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png", compress_level=0)
    mask = run_lengths(noise[..., 0] > 127)
    objects = tuple(SceneObject("x" * 30, (5.0 * i, i, 9.0 * i, 2.0 * i), 0.9, mask=mask) for i in range(3))
    scenes = tuple(
        replace(scene(f"{i}.png", tmp_path / "noise.png", reference=objects, candidate=objects[:1]), size=(900, 700))
        for i in range(30)
    )
    page = page_of(object_changes(scenes=scenes, kind="masks"))
    assert len(re.findall(r'<image class="picture" href="data:image/jpeg', page)) == 12
    assert len(page) < 2_000_000
    assert scene_picture(tmp_path / "gone.png", (), ()).missing == "the file no longer exists"


# ── in notebooks ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_single_charts_for_notebooks(tmp_path: Path) -> None:
    noise = np.random.RandomState(0).randint(0, 256, (700, 900, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png", compress_level=0)
    found = evaluation(candidate("a", objects=object_changes()), candidate("b", objects=object_changes(scenes=())))
    assert "triangle" in precision_chart(found, "triangle").text
    assert shift_chart(found).text.startswith("Shift of scores: a.")
    assert shift_chart(found, "b").text.startswith("Shift of scores: b.")
    assert "street.jpg" in scene_chart(found).text
    pictured = object_changes(scenes=(scene("x.png", tmp_path / "noise.png"),))
    assert len(scene_chart(evaluation(candidate(objects=pictured))).svg) < 30_000


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda e: precision_chart(e, "dgo"), "no precision of class 'dgo'.*name one of triangle"),
        (lambda _: precision_chart(evaluation(candidate()), "dog"), "evaluate a detector on labelled images"),
        (lambda e: shift_chart(e, "c"), "no objects of c.*name one of a"),
        (lambda _: shift_chart(evaluation(candidate())), "no objects of any candidate.*evaluate a detector"),
        (lambda e: scene_chart(e, 1), "no changed image 1: a has 1 of them"),
        (lambda e: scene_chart(e, -1), "no changed image -1"),
    ],
)
def test_charts_that_cannot_be_drawn(draw: Callable[[Evaluation], object], message: str) -> None:
    with pytest.raises(UsageError, match=f"(?s){message}"):
        draw(evaluation(candidate("a", objects=object_changes())))


# ── curves ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_curve_goes_through_its_figures() -> None:
    chart = precision_plot("dog", [("reference", (1.0, 1.0)), ("net", tuple(1.0 - i / 100 for i in range(101)))])
    root = ET.fromstring(chart.svg("k"))
    lines = [e.get("points", "").split() for e in root if e.tag.endswith("polyline")]
    flat, falling = ([tuple(map(float, p.split(","))) for p in points] for points in lines)
    assert flat[0][1] == flat[1][1]
    assert (falling[0], falling[-1][0]) == (flat[0], flat[-1][0])
    middle = tuple((a + b) / 2 for a, b in zip(falling[0], falling[-1], strict=True))
    assert falling[50] == pytest.approx(middle, abs=0.1)
    assert "mean precision 50.0 %" in chart.description
