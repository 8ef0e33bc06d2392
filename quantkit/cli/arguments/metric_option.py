"""The option --metric, whose help lists the registered metrics."""

from __future__ import annotations

import click


class MetricOption(click.Option):
    """An option whose help contains `{metrics}` and `{default}`, filled in only when the help is shown.

    Loading the metrics takes time, which commands without them should not spend.
    """

    def _filled(self) -> str:
        from quantkit.metrics.registry import default_metric, metric_choices

        return self._text.format(metrics=metric_choices(remarks=True), default=default_metric())

    def _set_text(self, text: str) -> None:
        self._text = text

    help = property(_filled, _set_text)
