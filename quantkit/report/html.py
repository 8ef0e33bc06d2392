"""Reports of `evaluate`, `layers` and `tune`: one self-contained HTML file each.

A page has no scripts and no external links, follows the reader's light or dark mode, and can be printed. Except for
images of samples it depends on values only, so the same values give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quantkit.engines.bench_result import BenchResult
from quantkit.evaluation.result import Evaluation
from quantkit.report import engine_times, layers, models, prediction_changes, tuning
from quantkit.report.detection import objects, regions
from quantkit.report.page import Fact, Facts, Page, PageSection, PageVerdict
from quantkit.report.ranges import ranges_section
from quantkit.report.wording import count_noun, format_decibel, format_seconds
from quantkit.sensitivity.result import Sensitivity
from quantkit.statistics import Statistics
from quantkit.tuning.result import Tuning

DEEPEST = 12
"""Levels of the provenance that are listed separately."""


def evaluation_page(
    evaluation: Evaluation,
    *,
    sensitivity: Sensitivity | None = None,
    statistics: Statistics | None = None,
    bench: BenchResult | None = None,
    title: str | None = None,
    links: Mapping[str, str] | None = None,
) -> str:
    """Return the page of an evaluation, with layers, ranges and speeds if they are given.

    links: file beside the page → what it is.
    """
    candidates = [m.name for m in evaluation.candidates]
    compared = candidates[0] if len(candidates) == 1 else count_noun(len(candidates), "candidate")
    sections = [
        models.models_section(evaluation),
        models.drop_section(evaluation),
        models.speed_section(evaluation, bench),
        *change_sections(evaluation),
        *loss_sections(sensitivity, statistics),
        provenance_section(evaluation.provenance, model_facts(evaluation)),
    ]
    return Page(
        title or f"Accuracy in INT8: {evaluation.reference.name}",
        f"{evaluation.reference.name} compared with {compared}" if candidates else evaluation.reference.name,
        models.evaluation_verdict(evaluation),
        tuple(section for section in sections if section is not None),
        links or {},
    ).html()


def sensitivity_page(sensitivity: Sensitivity, *, statistics: Statistics | None = None) -> str:
    """Return the page of a sensitivity analysis: layers, tensors, and with statistics also ranges."""
    quantized = [layer for layer in sensitivity.layers if not layer.kept]
    sentences = []
    if quantized:
        worst = quantized[0]
        sentences.append(
            f"{worst.node or worst.operator} loses most: keeping it in float gains {format_decibel(worst.gain_db)} "
            "at the outputs."
        )
    sentences += [f"{text[:1].upper()}{text[1:]}." for text in sensitivity.warnings]
    figures = (
        (format_decibel(sensitivity.all_db), "SQNR of the outputs"),
        (f"{len(sensitivity.layers):,}", "layer" if len(sensitivity.layers) == 1 else "layers"),
        (f"{sensitivity.samples:,}", "sample" if sensitivity.samples == 1 else "samples"),
        (format_seconds(sensitivity.seconds), "to measure"),
    )
    verdict = PageVerdict(tuple(sentences) or ("No layer is quantized.",), "", "", figures, sensitivity.notes)
    sections = [*loss_sections(sensitivity, statistics), provenance_section(sensitivity.provenance, [])]
    subtitle = f"scales from {sensitivity.source}"
    return Page(
        f"Where INT8 loses accuracy: {Path(sensitivity.model).name}", subtitle, verdict, tuple(filter(None, sections))
    ).html()


def tuning_page(found: Tuning) -> str:
    """Return the page of a tuning: the choice and its reasons, its accuracy on the held-out part, the layer ranking."""
    report = found.report
    sections = [
        tuning.tried_section(found),
        engine_times.times_section(found),
        tuning.front_section(found),
        models.models_section(report),
        models.drop_section(report),
        *change_sections(report),
        *loss_sections(tuning.tuned_sensitivity(found), None),
        provenance_section(found.provenance, model_facts(report)),
    ]
    subtitle = f"{found.metric}, with a loss of at most {found.budget}"
    return Page(
        f"Tuning of {found.model}", subtitle, tuning.tuning_verdict(found), tuple(filter(None, sections))
    ).html()


def change_sections(evaluation: Evaluation) -> list[PageSection | None]:
    """Return sections on changed predictions: objects, regions; by class, by pair of classes, by sample."""
    return [
        objects.precision_section(evaluation),
        objects.matches_section(evaluation),
        objects.scenes_section(evaluation),
        regions.regions_section(evaluation),
        regions.maps_section(evaluation),
        prediction_changes.classes_section(evaluation),
        prediction_changes.confusions_section(evaluation),
        prediction_changes.samples_section(evaluation),
    ]


def loss_sections(sensitivity: Sensitivity | None, statistics: Statistics | None) -> list[PageSection]:
    """Return sections on the origin of the loss, as far as it is known."""
    found: list[PageSection] = []
    if sensitivity is not None:
        found.append(layers.layers_section(sensitivity))
        if sensitivity.tensors:
            found.append(layers.tensors_section(sensitivity))
    if statistics is not None and len(statistics):
        found.append(ranges_section(statistics, sensitivity))
    return found


# ── provenance ──────────────────────────────────────────────────────────────────────────────────────────────────────


def provenance_section(provenance: Mapping[str, Any], models_of: Sequence[Fact]) -> PageSection:
    """Return the section that lists everything that determines the figures."""
    listed = Facts((*models_of, *nested_facts(provenance, 0)))
    return PageSection("provenance", "Provenance", "Everything that determines these figures.", (listed,))


def model_facts(evaluation: Evaluation) -> list[Fact]:
    """Return the files and digests of the models."""
    return [
        Fact(
            model.name,
            "",
            tuple(Fact(n, v) for n, v in (("file", file_name(model.path)), ("sha256", model.sha256)) if v),
        )
        for model in evaluation.models
    ]


def file_name(path: Any) -> str:
    """Return the name without folders, because pages are passed on."""
    return path.name if path is not None else ""


def nested_facts(values: Mapping[str, Any], depth: int) -> tuple[Fact, ...]:
    """Return JSON values as names and values, with lists of plain values in one line."""
    return tuple(nested_fact(str(key), value, depth) for key, value in values.items())


def nested_fact(key: str, value: Any, depth: int) -> Fact:
    """Return one JSON value as a name with a value, or with facts below it."""
    if isinstance(value, Mapping) and value and depth < DEEPEST:
        return Fact(key, "", nested_facts(value, depth + 1))
    if isinstance(value, (list, tuple)):
        if any(isinstance(v, (Mapping, list, tuple)) for v in value) and depth < DEEPEST:
            return Fact(key, "", tuple(nested_fact(str(i), v, depth + 1) for i, v in enumerate(value, 1)))
        return Fact(key, ", ".join(map(plain_text, value)) or "none")
    return Fact(key, plain_text(value))


def plain_text(value: Any) -> str:
    """Return a plain JSON value as text."""
    if value is None or value == {}:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
