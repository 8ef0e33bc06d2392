"""All metrics by name: the built-in ones, and `module:callable` for a user's own.

    resolve_metric("top1", outputs)             share of samples whose label has the highest score
    resolve_metric("top5@logits", outputs)      the same for the output `logits` and the five highest scores
    resolve_metric("module:callable", outputs)  a metric of the user's own (see `user_metric`)

A built-in metric is one file in this folder with a `METRIC` (see `BuiltInMetric`); nothing else names it. Help texts
and errors list what is found here.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import re
from collections.abc import Callable, Sequence
from functools import cache

from quantkit import metrics
from quantkit.errors import UsageError
from quantkit.metrics.metric import BuiltInMetric, LabelRequest, MetricFactory, MetricLabels
from quantkit.view import quoted

USER_METRIC = "module:callable"
USER_PATTERN = re.compile(r"\w[\w.]*:\w+")


@cache
def built_in_metrics() -> tuple[BuiltInMetric, ...]:
    """Return the metrics of this folder, the default first."""
    names = [f"{metrics.__name__}.{found.name}" for found in pkgutil.iter_modules(metrics.__path__)]
    modules = [importlib.import_module(name) for name in names if name != __name__]
    found = [module.METRIC for module in modules if hasattr(module, "METRIC")]
    return tuple(sorted(found, key=lambda metric: (not metric.default, *metric.examples)))


def find_built_in(text: str) -> tuple[BuiltInMetric, re.Match[str]] | None:
    """Return the built-in metric that a user's text names, with the match of its pattern; `@OUTPUT` is ignored."""
    word = text.partition("@")[0]
    matches = ((metric, re.fullmatch(metric.pattern, word)) for metric in built_in_metrics())
    return next(((metric, match) for metric, match in matches if match), None)


def default_metric() -> str:
    """Return the name of the metric that is used if none is given."""
    return next(name for metric in built_in_metrics() if metric.default for name in metric.examples)


def metric_choices(*, remarks: bool = False) -> str:
    """Return `top1, …, or module:callable` for help texts and errors, with remarks in parentheses if asked."""
    examples = [item for metric in built_in_metrics() for item in metric.examples.items()]
    names = [f"{name} ({remark})" if remark and remarks else name for name, remark in examples]
    return f"{', '.join(names)}, or {USER_METRIC}"


def resolve_metric(text: str, outputs: Sequence[str]) -> MetricFactory:
    """Return a factory for the metric that a user named. outputs: names of the network's outputs.

    UsageError if there is no such metric or no such output.
    """
    from quantkit.metrics.user_metric import load_user_metric

    word, at, output = text.partition("@")
    if at and output not in outputs:
        raise UsageError(
            f"--metric {text}: the network has no output {output!r}", remedy=f"use one of {', '.join(outputs)}"
        )
    if found := find_built_in(word):
        metric, match = found
        return metric.create(match, output or None)
    if USER_PATTERN.fullmatch(word):
        return load_user_metric(word, output or None, metric_choices())
    choices = f"{metric_choices()} for a metric of your own; @NAME picks an output"
    meant = similar_metric(word)
    raise UsageError(
        f"unknown metric {quoted(text)}", remedy=f"did you mean {meant}? All are {choices}" if meant else choices
    )


def similar_metric(word: str) -> str | None:
    """Return the built-in metric that a word may mean: another name of one, or one that is written nearly alike."""
    known = {bare_word(other): name for metric in built_in_metrics() for other, name in metric.words.items()}
    known |= {bare_word(name): name for metric in built_in_metrics() for name in metric.examples}
    nearest = difflib.get_close_matches(bare_word(word), known, n=1, cutoff=0.7)
    return known[nearest[0]] if nearest else None


def bare_word(word: str) -> str:
    """Return a word in small letters and digits alone: `top1` for `Top-1`."""
    return re.sub("[^a-z0-9]", "", word.lower())


def metric_title(name: str) -> str:
    """Return a metric's name for reports: `top-1` for `top1`."""
    word, at, output = name.partition("@")
    found = find_built_in(word)
    return f"{found[0].title(found[1])}{at}{output}" if found else name


def is_share_metric(text: str) -> bool:
    """Return True if a built-in metric, or a figure of one, of that name is a share 0 … 1."""
    found = find_built_in(text)
    if found is not None:
        return found[0].share
    return any(metric.share for metric in built_in_metrics() if text in metric.figures)


def wants_class_labels(texts: Sequence[str]) -> bool:
    """Return True if one of the metrics needs class indices as labels."""
    return any(found[0].class_labels for text in texts if (found := find_built_in(text)))


def own_label_opener(texts: Sequence[str]) -> Callable[[LabelRequest], MetricLabels] | None:
    """Return how the metrics open labels of their own kind; None if the data set's labels serve.

    UsageError if the metrics need labels of different kinds.
    """
    known = {text: found[0] if (found := find_built_in(text)) else None for text in texts}
    openers = {text: metric.open_labels if metric else None for text, metric in known.items()}
    first = next((text for text in texts if openers[text] is not None), None)
    if first is None:
        return None
    other = next((text for text in texts if openers[text] != openers[first]), None)
    if other is not None:
        kind = known[first].label_kind if known[first] else ""  # type: ignore[union-attr]
        raise UsageError(f"{first} needs {kind} as labels, {other} does not", remedy="evaluate them one at a time")
    return openers[first]


def is_reproducible(texts: Sequence[str], *, labels_given: bool) -> bool:
    """Return True if data and options identify what the metrics measure.

    The code of a user's own metric is unknown, and so are labels that a metric finds by itself.
    """
    found = [find_built_in(text) for text in texts]
    return all(known is not None and (known[0].open_labels is None or labels_given) for known in found)
