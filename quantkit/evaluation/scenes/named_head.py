"""The head that a metric names without being measured: `--no-labels --metric map:detr` compares objects alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from quantkit.metrics.heads.find import TASKS, fitting_heads, require_head
from quantkit.metrics.heads.head import Head, HeadQuestion
from quantkit.metrics.regions.map_head import MapHead, require_map_head
from quantkit.metrics.registry import find_built_in
from quantkit.metrics.task import Task


def names_heads(texts: Sequence[str]) -> bool:
    """Return True if all metrics are those of objects or regions, so that they name a head."""
    found = [find_built_in(text) for text in texts]
    return all(known is not None and known[0].task in (*TASKS, Task.SEMANTIC) for known in found)


def named_head(question: HeadQuestion, texts: Sequence[str]) -> Head | None:
    """Return the head of the first metric of objects; None if none is named. UsageError if the outputs do not fit."""
    for text in texts:
        word, _, output = text.partition("@")
        known = find_built_in(word)
        if known is None or known[0].task not in TASKS:
            continue
        task = question.network.task
        if task is None and known[0].task is not Task.DETECT:
            task = known[0].task
        asked = replace(question, network=replace(question.network, task=task), chosen=output or None)
        return require_head(asked, known[1]["head"], next(iter(known[0].examples)))
    return None


def named_map_head(question: HeadQuestion, texts: Sequence[str]) -> MapHead | None:
    """Return the output of the first metric of regions; None if none is named. UsageError if no output fits."""
    for text in texts:
        word, _, output = text.partition("@")
        known = find_built_in(word)
        if known is not None and known[0].task is Task.SEMANTIC:
            return require_map_head(question, output or None)
    return None


def describe_ambiguity(question: HeadQuestion) -> str | None:
    """Return why objects are not compared if the outputs fit several heads; None if they fit one, or none."""
    fitting = fitting_heads(replace(question, certain=True))
    if len(fitting) < 2:
        return None
    names = [head.layout for head in fitting]
    return (
        f"the outputs may be those of a {' or a '.join(names)} head, so that objects are not compared; "
        f"--metric map:{names[0]} names it, also with --no-labels"
    )
