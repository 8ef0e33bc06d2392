"""Single charts for notebooks, with colours for light and dark mode included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from quantkit.artifact import sha256_of
from quantkit.errors import StatisticsError
from quantkit.evaluation.result import Evaluation
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


@dataclass(frozen=True, slots=True)
class Inline:
    """A chart for display in a notebook. svg: a complete SVG document. text: the same in words."""

    svg: str
    text: str

    def _repr_svg_(self) -> str:
        return self.svg

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:  # noqa: ARG002 (IPython's)
        return {"image/svg+xml": self.svg, "text/plain": self.text}

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
