"""The report: one file, nothing from elsewhere, all that was found, well formed whatever the names and figures."""

from __future__ import annotations

import base64
import io
import math
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from quantkit._version import __version__
from quantkit.errors import StatisticsError
from quantkit.evaluation.object_changes import PrecisionChange
from quantkit.evaluation.result import ChangedSample, Device, Evaluation, IntervalMethod, MetricDifference
from quantkit.metrics.registry import metric_title
from quantkit.report import charts_plane, charts_rows
from quantkit.report.attributes import PRESENTATION, presentation_attributes
from quantkit.report.charts import fit_text, text_width
from quantkit.report.charts_axes import Scale, spanning_scale, tick_labels, tick_values
from quantkit.report.charts_plane import LabelBox, label_lanes, place_labels
from quantkit.report.html import evaluation_page, sensitivity_page
from quantkit.report.inline import drops_chart, histogram_chart, sensitivity_chart
from quantkit.report.page import SHIFT, read_resource
from quantkit.report.ranges import SHOWN_RULES, clipping, worst_tensors
from quantkit.report.thumbnails import LARGEST, thumbnail
from quantkit.report.wording import (
    format_decibel,
    format_number,
    format_percent,
    format_probability,
    format_signed,
    format_size,
)
from quantkit.rules.minmax import MinMax
from tests.support.objects import object_changes, region_changes, scene
from tests.support.reports import (
    EVALUATIONS,
    NUMBERS,
    SENSITIVITIES,
    bench,
    candidate,
    evaluation,
    reference,
    sensitivity,
    statistics,
)

VOID = {"meta", "link", "img", "br", "wbr", "input"}
SVG = re.compile(r"<svg .*?</svg>", re.S)


class Reader(HTMLParser):
    """Reads a page as strictly as it can be: every tag closed in order; collects what the tests ask for."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.styles: list[str] = []
        self.handlers: list[str] = []
        self.labelled: list[str] = []
        self.headings: list[int] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute twice in <{tag}>"
        for name, value in attrs:
            places = {"id": self.ids, "href": self.links, "src": self.sources, "style": self.styles}
            places["href"] = self.sources if tag == "image" else self.links
            places.get(name, []).append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)
            if name in {"aria-labelledby", "aria-describedby"}:
                self.labelled += (value or "").split()
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)


def sound(page: str) -> Reader:
    """What holds for every page."""
    page.encode("utf-8")
    read = Reader(page)
    assert page.startswith("<!DOCTYPE html>")
    assert read.tags["script"] == read.tags["iframe"] == read.tags["object"] == 0
    assert not read.handlers
    assert all(s.startswith("data:image/") for s in read.sources)
    assert all(link.startswith("#") or link == "data:," for link in read.links)
    assert {link[1:] for link in read.links if link.startswith("#")} <= set(read.ids)
    assert not [i for i, n in Counter(read.ids).items() if n > 1]
    assert set(read.labelled) <= set(read.ids)
    assert read.headings[0] == 1
    assert read.headings.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(read.headings, read.headings[1:], strict=False))
    assert "url(" not in page
    assert "@import" not in page
    assert read.tags["main"] == read.tags["header"] == read.tags["footer"] == read.tags["nav"] == 1
    assert read.tags["caption"] == read.tags["table"]
    for drawing in SVG.findall(page):
        root = ET.fromstring(drawing)
        if root.get("aria-hidden") != "true":
            assert root.get("role") == "img"
            assert root[0].tag.endswith("title")
            assert root[1].tag.endswith("desc")
            numbers = re.sub(r"<(title|desc|text).*?</\1>|base64,[^\"]*", "", drawing)
            assert "nan" not in numbers.lower()
    return read


def full_page(**changes: object) -> str:
    """A page with every section."""
    found = evaluation(candidate(), candidate("net.best.engine"))
    held = statistics({"conv1": np.linspace(-3, 2, 5000) ** 3, "relu": np.zeros(9)})
    return evaluation_page(found, sensitivity=sensitivity("conv1", "head"), statistics=held, bench=bench(), **changes)  # type: ignore[arg-type]


# ── what is in it ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_not_known_is_left_out() -> None:
    unknown = MetricDifference(0.5, math.nan, math.nan, math.nan, 0, 0, IntervalMethod.VALUE_ONLY)
    changed = ChangedSample("a.png", "", "1.5", math.nan, "2.5", math.nan)
    page = evaluation_page(evaluation(candidate(difference=unknown, changed=(changed,))))
    assert "(not a number" not in page
    assert '<span class="sure"></span>' in page
    second = replace(candidate(), metrics={"top1": 0.9, "top3": 0.9541})
    assert "95.41 %" in evaluation_page(evaluation(second))


def test_every_number_appears() -> None:
    read = sound(full_page())
    expected = """
        91.18 % | 99.29 % | 4.34 MB | 41,012 | 0.7803 ms | batches of 32 on NVIDIA H200 | 90.87 % | 99.21 % | 1.11 MB
        97,123
        0.3301 ms | 21 of 23 | +0.31 | (+0.13 … +0.49) | 0.0042 | 17 | 48
        Bonett-Price interval, McNemar's test (mid-p) | 98.73 % | 127 changed
        31.3 dB | 0.99951 | 0.00213 | 2.875 | 85.7 % | −0.93 pp | 86.6 %
        1,003 | 83.45 % | 80.67 % | +2.78 ● | p < 0.001 | 997 | 88.21 % | 89.11 %, p 0.61 | −0.90 | 29 | 13
        73.1 % | 64.2 %
        31.4 dB | 512 | 50.0 % | 37.4 dB | 32.9 dB | 1.5 dB | 36.6 dB | 9,408 | 33.3 dB | 0.071 % | 211 | 0.0173
        0.123 | 0.136 | 0.160 | 0.087 | 3.949 | 2.787 | 640 | 143,210 | 10,000 | 48.3 s | 0.49, 0.48 | Q/DQ ONNX
        float ONNX | asked for | locks were not locked | Scored with fake-quantized numerics. | val/
    """
    for figure in re.split(r"[|\n]", expected):
        assert figure.strip() in read.text, figure
    for sha in ("a1" * 32, "b2" * 32):
        assert sha in read.text
    for rule in SHOWN_RULES:
        assert rule.name in read.text
    assert f"quantkit {__version__}" in read.text
    assert "2 of 2 over the budget of 0.25 percentage points" in read.text


def test_the_verdict_is_first_and_the_title_can_be_given() -> None:
    read = sound(full_page(title="A & B"))
    assert "<h1><bdi>A &amp; B</bdi></h1>" in full_page(title="A & B")
    assert read.text.index("a significant loss") < read.text.index("Models")


def test_paths_of_this_machine_stay_out() -> None:
    assert "secret" not in full_page()


def test_the_budget_is_reported_in_words() -> None:
    worse, better = candidate("worse"), candidate("better", difference=replace(candidate().difference, value=-0.4))  # type: ignore[type-var]
    assert "1 of 2 over the budget" in sound(evaluation_page(evaluation(worse, better))).text
    assert "within the budget of 0.25 percentage points" in sound(evaluation_page(evaluation(better))).text
    assert "the budget of" not in sound(evaluation_page(evaluation(worse, max_drop=None))).text
    unknown = candidate(difference=replace(candidate().difference, value=float("nan")))  # type: ignore[type-var]
    assert "over the budget" in sound(evaluation_page(evaluation(unknown))).text


def test_one_model_without_labels() -> None:
    page = evaluation_page(evaluation(metric=None, share=False, models=(reference(metrics={}),), verdict=()))
    read = sound(page)
    assert "nothing to compare" in read.text
    assert "Accuracy loss" not in read.text
    unlabelled = candidate(metrics={}, difference=None, classes=())
    read = sound(evaluation_page(evaluation(unlabelled, metric=None, share=False)))
    assert "Accuracy loss" not in read.text
    assert "agreement with the reference" in read.text


def test_cpu_speeds_are_not_plotted() -> None:
    slow = replace(reference().speed, where="onnxruntime, CPU", device=Device.CPU)  # type: ignore[type-var]
    here = evaluation(candidate(speed=slow), models=(reference(speed=slow), candidate(speed=slow)))
    assert "Accuracy and speed" not in sound(evaluation_page(here)).text
    mixed = evaluation(models=(reference(), candidate(speed=slow)))
    assert "Accuracy and speed" not in sound(evaluation_page(mixed)).text
    assert "Accuracy and speed" in sound(evaluation_page(evaluation(candidate()))).text


def test_a_metric_in_its_own_unit() -> None:
    read = sound(evaluation_page(evaluation(candidate(metrics={"psnr": 31.337}), metric="psnr", share=False)))
    assert "31.34" in read.text
    assert "drop, psnr" in read.text
    assert "points of" not in read.text


def test_two_hundred_layers_are_ranked() -> None:
    nodes = [f"/backbone/stage{i // 20}/block{i % 20}/{'very/' * 30}conv" for i in range(200)]
    read = sound(sensitivity_page(sensitivity(*nodes)))
    places = [read.text.index(node) for node in nodes]
    assert places[0] < places[1]
    assert "All 200 layers as a table" in read.text
    assert "175 more layers in the table" in read.text


def test_a_thousand_classes_are_bounded() -> None:
    classes = tuple(replace(candidate().classes[0], name=f"class{i:04}", drop=float(i)) for i in range(1000))
    page = evaluation_page(evaluation(candidate(classes=classes)))
    assert "800 with smaller changes are omitted" in sound(page).text
    assert "class0999" in page
    assert "class0001" not in page
    assert len(page) < 400_000


@settings(max_examples=25)
@given(EVALUATIONS, st.none() | SENSITIVITIES)
def test_any_names_and_figures_make_a_sound_page(found: Evaluation, losses: object) -> None:
    page = evaluation_page(found, sensitivity=losses)  # type: ignore[arg-type]
    sound(page)
    assert page == evaluation_page(found, sensitivity=losses)  # type: ignore[arg-type]


@settings(max_examples=20)
@given(SENSITIVITIES)
def test_any_sensitivity_makes_a_sound_page(found: object) -> None:
    sound(sensitivity_page(found))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", "\"'><img src=x onerror=alert(1)>", "{{ 7*7 }}", "</svg></style>"]
)
def test_names_are_text(name: str) -> None:
    hostile = candidate(
        name,
        outputs=(replace(candidate().outputs[0], name=name),),
        classes=(replace(candidate().classes[0], name=name),),
        confusions=(replace(candidate().confusions[0], label=name, reference=name),),
        changed=(ChangedSample(name, name, name, 0.5, name, 0.5),),
    )
    found = evaluation(hostile, verdict=(name,), notes=(name,), provenance={name: {name: [name]}})
    held = statistics({name: [1.0, 2.0]})
    read = sound(evaluation_page(found, sensitivity=sensitivity(name), statistics=held, bench=bench(), title=name))
    assert read.text.count(name) > 12


# ── images ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def changed(path: Path | None) -> ChangedSample:
    return ChangedSample(path.name if path else "row 7", "cat", "cat", 0.7, "dog", 0.6, path)


def test_images_travel_in_the_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(tmp_path / "small.png")
    Image.fromarray(rng.integers(0, 255, (600, 900, 3), np.uint8)).save(tmp_path / "large.jpg")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no")
    paths = [tmp_path / n for n in ("small.png", "large.jpg", "broken.png", "gone.png")]
    page = evaluation_page(evaluation(candidate(changed=tuple(map(changed, [*paths, None])))))
    read = sound(page)
    assert len(read.sources) == 2
    assert "cannot be read as an image" in read.text
    assert "no longer exists" in read.text
    assert "row 7" in read.text
    assert str(tmp_path) not in page
    small, large = (Image.open(io.BytesIO(base64.b64decode(s.split(",")[1]))) for s in read.sources)
    assert np.array_equal(np.asarray(small), np.asarray(Image.open(paths[0])))
    assert max(large.size) == 160
    assert all(len(s) < 1.4 * LARGEST for s in read.sources)


def test_at_most_24_samples_each_once(tmp_path: Path) -> None:
    many = tuple(ChangedSample(f"{i}.png", "a", "a", 0.5, "b", 0.5) for i in range(300))
    read = sound(evaluation_page(evaluation(candidate("one", changed=many), candidate("two", changed=many))))
    names = re.findall(r"\d+\.png", read.text)
    assert len(names) == len(set(names)) == 24


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F"])
def test_any_kind_of_image_becomes_a_picture(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("x.tiff" if mode in {"CMYK", "F"} else "x.png")
    if mode in {"F", "I;16"}:
        Image.fromarray(np.arange(400).reshape(20, 20).astype(np.float32 if mode == "F" else np.uint16)).save(path)
    else:
        Image.linear_gradient("L").resize((20, 20)).convert(mode).save(path)
    made = thumbnail(path)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(made.uri.split(",")[1]))))
    assert picture.shape == (20, 20, 3)
    assert picture.std() > 20


# ── charts ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(NUMBERS, max_size=6), st.integers(2, 8))
def test_ticks_are_round_few_and_inside(values: list[float], count: int) -> None:
    scale = spanning_scale(values, 10.0, 500.0)
    found = tick_values(scale, count)
    assert 1 <= len(found) <= count + 1
    assert all(scale.low <= t * (1 + 1e-9) + 1e-300 and t * (1 - 1e-9) - 1e-300 <= scale.high for t in found) or len(
        found
    )
    assert all(10.0 <= scale(t) <= 500.0 for t in found)
    assert len(set(tick_labels(found))) == len(found)


def test_ticks_by_hand() -> None:
    assert tick_labels(tick_values(Scale(-0.26, 0.51, 0.0, 1.0), 4)) == ["−0.2", "0.0", "0.2", "0.4"]
    assert tick_labels(tick_values(Scale(0.0, 104000.0, 0.0, 1.0), 3)) == ["0", "50,000", "100,000"]


@given(st.text(max_size=300), st.floats(20, 400))
def test_shortened_names_fit(text: str, room: float) -> None:
    short = fit_text(text, room)
    assert text_width(short) <= room or short == "…"
    assert short == text or "…" in short


@given(st.lists(st.tuples(st.floats(80, 800), st.floats(40, 300)), min_size=1, max_size=9))
def test_labels_of_points_stay_inside(at: list[tuple[float, float]]) -> None:
    drawn = place_labels([f"net{i}" for i in range(len(at))], at, LabelBox(64.0, 20.0, 896.0, 310.0))
    for x, y in re.findall(r'<text class="label" x="([\d.]+)" y="([\d.]+)"', "".join(drawn)):
        assert 64.0 <= float(x) <= 960.0
        assert 20.0 <= float(y) <= 330.0


@given(st.lists(st.floats(0, 8), min_size=1, max_size=5, unique=True))
def test_labels_of_thresholds_do_not_meet(values: list[float]) -> None:
    found = statistics({"x": [0.1, 4.0]}).histograms["x"]
    thresholds = [(f"percentile:99.{i}", v) for i, v in enumerate(values)]
    lanes = label_lanes(thresholds, found, 380.0)
    across = Scale(0.0, charts_plane.axis_end(found, thresholds), 40.0, 372.0)
    boxes = []
    for (rule, value), (lane, anchor) in zip(thresholds, lanes, strict=True):
        width, x = text_width(rule), across(value)
        boxes.append(LabelBox(x - 4 - width if anchor == "end" else x + 4, 17.0 * lane, width, 12.0))
        assert boxes[-1].x >= 0.0
    assert not any(a.meets(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_whiskers_lie_where_the_figures_say() -> None:
    found = evaluation(candidate())
    body = "".join(charts_rows.drop_plot(found).body)
    zero = float(re.search(r'class="zero" x1="([\d.]+)"', body)[1])  # type: ignore[index]
    budget = float(re.search(r'class="budget" x1="([\d.]+)"', body)[1])  # type: ignore[index]
    low, high = map(float, re.search(r'class="whisker loss" x1="([\d.]+)" y1="[\d.]+" x2="([\d.]+)"', body).groups())  # type: ignore[union-attr]
    unit = (budget - zero) / 0.25
    assert (low - zero) / unit == pytest.approx(0.13, abs=0.002)
    assert (high - zero) / unit == pytest.approx(0.49, abs=0.002)
    assert "<polygon" in body
    assert "<circle" in "".join(charts_rows.drop_plot(replace(found, max_drop=0.5)).body)


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_text_has_contrast(mode: int) -> None:
    blocks = re.findall(r"--paper:.*?}", read_resource("chart.css"), re.S)
    assert len(blocks) == 2
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[mode]))
    for ground in ("paper", "raised"):
        for ink in ("ink", "muted", "accent", "loss", "gain", "budget", "r1", "r2", "r3", "r4", "r5"):
            light, dark = sorted((luminance(colours[ground]), luminance(colours[ink])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (ground, ink)
    for tint in ("loss", "gain"):
        pair = zip(*((int(colours[c][i : i + 2], 16) for i in (1, 3, 5)) for c in (tint, "paper")), strict=True)
        cell = "#" + "".join(f"{round(SHIFT / 100 * a + (1 - SHIFT / 100) * b):02x}" for a, b in pair)
        light, dark = sorted((luminance(cell), luminance(colours["ink"])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, tint


# ── ranges ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15)
def test_clipping_agrees_with_the_values(seed: int) -> None:
    values = np.random.default_rng(seed).standard_t(4, 4000).astype(np.float32)
    found = statistics({"x": values}).histograms["x"]
    for rule in SHOWN_RULES:
        cost = clipping(found, rule)
        scale = cost.threshold / 127
        quantized = np.clip(np.rint(values / scale), -127, 127) * scale
        exact = 10 * np.log10(np.square(values).sum() / np.square(values - quantized).sum())
        assert cost.sqnr_db == pytest.approx(exact, abs=0.5)
        assert cost.clipped == pytest.approx((np.abs(values) > cost.threshold).mean(), abs=0.002)
    assert clipping(found, MinMax()).clipped == 0.0


def test_the_worst_tensors_are_those_that_were_measured() -> None:
    held = statistics({"good": np.linspace(-1, 1, 4000), "bad": [*np.linspace(-1, 1, 4000), 1e4], "zero": [0.0]})
    assert worst_tensors(held, None) == ("bad", "good", "zero")
    assert worst_tensors(held, sensitivity("zero", "good", "gone", "bad")) == ("zero",)


# ── in notebooks ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_inline_charts_are_documents_of_their_own() -> None:
    held = statistics({"conv<1>": np.linspace(-3, 2, 500)})
    made = [
        histogram_chart(held, "conv<1>"),
        histogram_chart(held, "conv<1>", "minmax,percentile:99.9", width=400.0),
        drops_chart(evaluation(candidate())),
        sensitivity_chart(sensitivity("conv1", "head")),
    ]
    ids = []
    for chart in made:
        root = ET.fromstring(chart._repr_svg_())
        ids.append(root[0].get("id"))
        assert "prefers-color-scheme" in str(chart)
    assert len(set(ids)) == 4
    assert str(made[0]) == str(histogram_chart(held, "conv<1>"))
    with pytest.raises(StatisticsError, match="no tensor 'conv2'"):
        histogram_chart(held, "conv2")


# ── words ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_numbers_as_words() -> None:
    assert (format_number(-0.001), format_number(-3.14159), format_number(float("inf")), format_number(1.5e9)) == (
        "0.00",
        "−3.14",
        "∞",
        "1.5e+09",
    )
    assert (format_signed(0.25), format_signed(-0.25), format_signed(0.001), format_signed(0.0)) == (
        "+0.25",
        "−0.25",
        "0.00",
        "0.00",
    )
    assert (format_decibel(float("inf")), format_decibel(float("nan"))) == ("∞ dB", "not a number")
    assert (format_probability(0.0004), format_probability(0.042), format_probability(1.0)) == (
        "p < 0.001",
        "p 0.042",
        "p 1",
    )
    assert (format_size(999), format_size(1_112_233), format_size(2_000_000_000_000)) == (
        "999 B",
        "1.11 MB",
        "2,000 GB",
    )
    assert (format_percent(0.9118), metric_title("top5"), metric_title("map")) == ("91.18 %", "top-5", "mAP50-95")


# ── in a browser ────────────────────────────────────────────────────────────────────────────────────────────────────


def browser() -> str:
    """Headless Chromium, where there is one."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome", "chromium-headless-shell")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("no Chromium on the path")
    return found


PROBE = """<script>addEventListener("load", () => { const e = document.documentElement;
document.body.innerHTML = `<p id="found">${e.scrollWidth} ${e.clientWidth}</p>`; });</script></body>"""


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_does_not_scroll_sideways(tmp_path: Path, width: int) -> None:
    chromium = browser()
    long = "/".join(["block"] * 40) + "x" * 400
    objects = object_changes(
        scenes=(scene(long),), sizes=(PrecisionChange(long, 1, 0.5, 0.4, 10.0, 1.0, 2.0, 0.5, 0.4),)
    )
    first = candidate(long, objects=objects, regions=region_changes(names=(long, "road")))
    found = evaluation(first, candidate(), notes=(long,), verdict=(long,), provenance={long: long})
    page = evaluation_page(
        found, sensitivity=sensitivity(long, "b"), statistics=statistics({long: [1.0, 3.0]}), bench=bench()
    )
    page = re.sub(r'<meta http-equiv="Content-Security-Policy".*?>', "", page).replace("</body>", PROBE)
    (tmp_path / "inner.html").write_text(page, encoding="utf-8")
    # A window is at least 500 px wide; a frame is as wide as it is told.
    frame = f'<iframe src="inner.html" style="width:{width}px;height:3000px;border:0"></iframe>'
    (tmp_path / "page.html").write_text(f"<body>{frame}</body>", encoding="utf-8")
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom",
    ]
    options += ["--allow-file-access-from-files", "--virtual-time-budget=3000", "--window-size=1400,1000"]
    script = "<script>onload = () => { document.title = frames[0].document.body.innerText }</script>"
    (tmp_path / "page.html").write_text(f"<head>{script}</head><body>{frame}</body>", encoding="utf-8")
    done = subprocess.run(
        [chromium, *options, (tmp_path / "page.html").as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    told = re.search(r"<title>(\d+) (\d+)</title>", done.stdout)
    assert told, done.stdout[-2000:] + done.stderr[-2000:]
    assert int(told[1]) <= int(told[2])


OVER = MetricDifference(3.0, 2.0, 4.0, 0.1, 1, 9, IntervalMethod.CHANGED_SAMPLES)


def test_inline_charts_keep_their_colours_without_their_style() -> None:
    held = statistics({"x": np.linspace(-3, 2, 500)})
    for chart in (
        histogram_chart(held, "x", "entropy,minmax,mse,percentile:99,percentile:99.9"),
        drops_chart(evaluation(candidate(), candidate("over", difference=OVER))),
        sensitivity_chart(sensitivity("conv1", "kept")),
    ):
        root = ET.fromstring(re.sub("<style>.*?</style>", "", chart.svg, flags=re.S))
        drawn = [e for e in root if e.tag.rpartition("}")[2] not in ("title", "desc", "style")]
        assert drawn[0].get("fill") == "#ffffff"
        for element in drawn:
            told = {name: value for name, value in element.attrib.items() if name in PRESENTATION}
            assert told.get("stroke") or told.get("fill"), element.attrib
            assert "var(" not in "".join(told.values())
        assert root.get("font-size") == "12px"
        assert chart._repr_mimebundle_()[0]["text/plain"] == chart.text
        assert "<" not in chart.text


def test_the_more_exact_rule_decides() -> None:
    assert presentation_attributes("text", "label") == presentation_attributes("text", "figure")
    assert 'fill="#17202a" stroke="#ffffff" stroke-width="4px"' in presentation_attributes("text", "label")
    assert 'fill="#7b3fa0"' in presentation_attributes("text", "label budget-label")
    assert 'stroke="#b23a16" stroke-width="2"' in presentation_attributes("line", "whisker loss")
    assert presentation_attributes("g", "unheard-of") == ""


def test_inline_charts_have_a_picture_for_viewers_without_svg(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("resvg_py")
    chart = drops_chart(evaluation(candidate("conv<1> & \u202e")))
    shown, about = chart._repr_mimebundle_()
    assert set(shown) == {"image/svg+xml", "image/png", "text/plain"}
    root = ET.fromstring(shown["image/svg+xml"])
    with Image.open(io.BytesIO(base64.b64decode(shown["image/png"]))) as image:
        assert about["image/png"]["width"] == float(str(root.get("width"))) == image.width / 2
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 20) or []}
    for wanted in ((255, 255, 255), (0x17, 0x20, 0x2A)):  # paper and ink
        assert min(sum(abs(a - b) for a, b in zip(found, wanted, strict=True)) for found in colours) < 12
    assert chart._repr_mimebundle_() == (shown, about)
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    assert set(chart._repr_mimebundle_()[0]) == {"image/svg+xml", "text/plain"}


def test_files_beside_the_page_are_linked_whatever_their_names() -> None:
    page = evaluation_page(evaluation(), links={'a"b/<\udce4>.map.html': "Map <1>"})
    assert '<a href="a%22b%2F%3C%E4%3E.map.html">Map &lt;1&gt; ↗</a>' in page
