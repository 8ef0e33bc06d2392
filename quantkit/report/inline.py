"""Single charts for notebooks, with colours for light and dark mode included; as PNG for viewers that show no SVG."""

from __future__ import annotations

import base64
import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from quantkit.artifact import sha256_of
from quantkit.errors import StatisticsError
from quantkit.evaluation.result import Evaluation
from quantkit.image_file import opened_image
from quantkit.paths import is_file
from quantkit.report import charts_plane, charts_rows
from quantkit.report.attributes import with_attributes
from quantkit.report.charts import Chart, fit_text
from quantkit.report.page import read_resource
from quantkit.report.ranges import SHOWN_RULES
from quantkit.rules import Rule, as_rules
from quantkit.sensitivity.result import Sensitivity
from quantkit.statistics import Statistics
from quantkit.view import replace_unprintable

WIDTH = 720.0
ZOOM = 2.0
"""Pixels for one of the SVG: sharp on dense screens."""
LARGEST = 40_000
"""Bytes of a PNG in double size; a larger one, which holds a photograph, is drawn in its own size."""
COLOURS = 128
"""Colours of a PNG: charts have ten and the edges of letters; a quarter of the size in full colour."""
STYLE = re.compile(r"<style>.*?</style>", re.S)
FONTS = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf")


@dataclass(frozen=True, slots=True)
class Inline:
    """A chart for display in a notebook. svg: a complete SVG document. text: the same in words.

    A notebook that is not trusted shows no SVG, so it gets a PNG as well, if resvg is installed (the extra `notebook`).
    """

    svg: str
    text: str

    def _repr_svg_(self) -> str:
        return self.svg

    def _repr_mimebundle_(
        self,
        include: Any = None,  # noqa: ARG002 (IPython's)
        exclude: Any = None,  # noqa: ARG002
    ) -> tuple[dict[str, str], dict[str, Any]]:
        shown, about = {"image/svg+xml": self.svg, "text/plain": self.text}, dict[str, Any]()
        if (drawn := chart_png(self.svg)) is not None:
            png, width = drawn
            shown["image/png"] = base64.b64encode(png).decode("ascii")
            about["image/png"] = {"width": width}
        return shown, about

    def __str__(self) -> str:
        return self.svg


def inline_chart(chart: Chart) -> Inline:
    """Return a chart with its style; its ids are derived from its content, so that many fit into one page."""
    key = "qk-" + sha256_of(repr(chart).encode("utf-8", "replace"))[:12]
    svg = with_attributes(chart.svg(key, read_resource("chart.css")))
    return Inline(svg, replace_unprintable(f"{chart.title}. {chart.description}"))


def histogram_chart(
    statistics: Statistics, tensor: str, rules: str | Rule | Sequence[Rule] = SHOWN_RULES, *, width: float = WIDTH
) -> Inline:
    """Draw the histogram of a tensor with the thresholds of rules. StatisticsError if there is no such tensor."""
    found = statistics.histograms.get(tensor)
    if found is None:
        known = ", ".join(fit_text(name, 200.0) for name in list(statistics.histograms)[:5])
        raise StatisticsError(
            f"the statistics have no tensor {tensor!r}", remedy=f"name one of their tensors: {known} …"
        )
    thresholds = [(rule.name, rule.threshold(found)) for rule in as_rules(rules)]
    return inline_chart(charts_plane.histogram_plot(tensor, found, thresholds, width))


def drops_chart(evaluation: Evaluation, *, width: float = WIDTH) -> Inline:
    """Draw the drop of every candidate with its 95 % interval."""
    return inline_chart(charts_rows.drop_plot(evaluation, width))


def sensitivity_chart(sensitivity: Sensitivity, *, width: float = WIDTH) -> Inline:
    """Draw the layers by their share of the noise."""
    return inline_chart(charts_rows.layer_share_plot(sensitivity, width))


def chart_png(svg: str) -> tuple[bytes, float] | None:
    """Return a chart of `inline_chart` as PNG in light colours, and its width; None where resvg is not installed.

    The attributes of the elements hold all colours; the style, whose variables resvg does not know, is left out. The
    font is matplotlib's where that is installed, so that the same chart gives the same bytes on every machine.
    """
    if importlib.util.find_spec("resvg_py") is None:
        return None
    import resvg_py
    from PIL import Image

    for zoom in (ZOOM, 1.0):
        drawn = bytes(resvg_py.svg_to_bytes(svg_string=STYLE.sub("", svg), zoom=zoom, **font_options()))
        with opened_image(drawn) as image:
            few = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        small = BytesIO()
        few.save(small, "PNG", optimize=True)
        if len(small.getvalue()) <= LARGEST:
            break
    return small.getvalue(), few.width / zoom


def font_options() -> dict[str, Any]:
    """Return resvg's options for matplotlib's font; those for the system's fonts without it."""
    found = importlib.util.find_spec("matplotlib")
    if found is None or found.origin is None:
        return {}
    files = [Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / name for name in FONTS]
    if not all(map(is_file, files)):
        return {}
    family = "DejaVu Sans"
    return {
        "skip_system_fonts": True,
        "font_files": [str(path) for path in files],
        "font_family": family,
        "sans_serif_family": family,
    }
