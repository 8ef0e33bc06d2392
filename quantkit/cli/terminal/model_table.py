"""The table of evaluated models that evaluate, compare, tune and run print, and the warning about their budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantkit.cli.terminal.console import (
    Tone,
    line_width,
    print_line,
    print_rows,
    print_sentence,
    table_width,
    warn,
)

if TYPE_CHECKING:
    from quantkit.evaluation.result import Evaluation, ModelScore


def print_model_table(evaluation: Evaluation) -> None:
    """Print a row for each model, with the other metrics if there is room; else these go into a table of their own."""
    from quantkit.metrics.registry import metric_title

    table = [model_columns(evaluation.metric), *(model_row(model, evaluation) for model in evaluation.models)]
    others = [name for name in evaluation.reference.metrics if name != evaluation.metric]
    cells = [[other_metric(name, model.metrics.get(name)) for name in others] for model in evaluation.models]
    titles = [metric_title(name) for name in others]
    whole = [(*line[:2], *more, *line[2:]) for line, more in zip(table, [titles, *cells], strict=True)]
    if not others or table_width(whole) <= line_width():
        print_rows(whole[0], whole[1:])
        return
    print_rows(table[0], table[1:])
    print_line()
    print_rows(("model", *titles), [(line[0], *more) for line, more in zip(table[1:], cells, strict=True)])


def model_columns(metric: str | None) -> tuple[str, ...]:
    """Return the columns; narrow, so that a line keeps to 80 characters."""
    from quantkit.metrics.registry import metric_title

    return ("model", metric_title(metric) if metric else "metric", "drop", "95 % interval", "agree", "SQNR dB", "INT8")


def model_row(model: ModelScore, evaluation: Evaluation) -> tuple[str, ...]:
    """Return a row of the table as text."""
    from quantkit.evaluation.result import layers_text, score_row

    _, metric, drop, interval, agree, sqnr, *_ = score_row(model, evaluation)
    return (model.name, metric, drop, interval, agree, sqnr, layers_text(model, "/"))


def other_metric(metric: str, value: float | None) -> str:
    """Return the value of a metric that does not decide, as text."""
    from quantkit.evaluation.result import format_metric
    from quantkit.metrics.registry import is_share_metric

    return format_metric(value, is_share_metric(metric))


def print_statements(evaluation: Evaluation, said: str = "") -> None:
    """Print the verdict, each sentence marked by the colour of what it says, and the doubts.

    said: a sentence that stands above; doubts that it names are not repeated.
    """
    tones = [verdict_tone(evaluation, model) for model in evaluation.candidates]
    verdict = evaluation.verdict
    for number, text in enumerate(verdict):
        print_sentence(text, tones[number] if number < len(tones) else None)
    for text, doubt in zip(evaluation.statements[len(verdict) :], evaluation.doubts, strict=True):
        if doubt not in said:
            print_sentence(text, Tone.DOUBT)


def verdict_tone(evaluation: Evaluation, model: ModelScore) -> Tone | None:
    """Return the colour of what is said of a candidate: good only where its whole interval is within the budget."""
    lost = model.difference
    if lost is None:
        return None
    budget = evaluation.max_drop
    if budget is None:
        return Tone.DOUBT if lost.low > 0 else None
    if lost.value > budget:
        return Tone.BAD
    return Tone.GOOD if lost.high <= budget and not evaluation.doubts else Tone.DOUBT


def overall_tone(evaluation: Evaluation) -> Tone | None:
    """Return the colour of the recommendation."""
    if evaluation.doubts:
        return Tone.DOUBT
    return None if evaluation.max_drop is None else Tone.GOOD if evaluation.within_budget else Tone.BAD


def warn_over_budget(evaluation: Evaluation) -> None:
    """Warn if a model loses more than the budget allows, or if that cannot be said."""
    if evaluation.within_budget:
        return
    points = "percentage point" if evaluation.max_drop == 1 else "percentage points"
    budget = f"the budget of {evaluation.max_drop:g}{f' {points}' if evaluation.share else ''}"
    warn(
        f"over {budget}" if evaluation.over_budget else f"nothing shows that {budget} is kept: the figures are in doubt"
    )
