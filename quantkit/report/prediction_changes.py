"""Changed predictions: by class, by pair of classes, and sample by sample."""

from __future__ import annotations

import math
from itertools import zip_longest

from quantkit.evaluation.result import ChangedSample, ClassDrop, Evaluation, ModelScore
from quantkit.report.page import Block, Cell, ModelPrediction, PageSection, PageTable, SampleCard, SampleCards
from quantkit.report.thumbnails import thumbnail
from quantkit.report.wording import count_noun, format_number, format_percent, format_probability, format_signed

CLASSES = 15
"""Classes that are visible at first; up to `MOST` are folded, and the page says how many are omitted."""
MOST = 200
CONFUSIONS = 12
SAMPLES = 24
SURE = 0.05
"""Changes of classes whose adjusted p is below this are marked as significant."""
FAINT = 0.4
"""Strength of the colour of the other classes."""


# ── classes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def classes_section(evaluation: Evaluation) -> PageSection | None:
    """Return a table of classes by candidates, the class with the largest change first."""
    found = [m for m in evaluation.candidates if m.classes]
    if not found:
        return None
    by_class: dict[str, dict[int, ClassDrop]] = {}
    for column, model in enumerate(found):
        for drop in model.classes:
            by_class.setdefault(drop.name, {})[column] = drop
    order = sorted(by_class, key=lambda name: (-largest_drop(by_class[name]), name))
    top = max((largest_drop(drops) for drops in by_class.values()), default=0.0)
    rows = tuple(class_row(name, by_class[name], len(found), top) for name in order[:MOST])
    head = ("class", "samples", "reference", *(m.name for m in found))
    caption = "Drop of every class in percentage points, and below it the accuracy of the candidate"
    blocks: list[Block] = [PageTable(caption, head, rows[:CLASSES], cards=True)]
    if rows[CLASSES:]:
        more = count_noun(len(rows) - CLASSES, "more class")
        left_out = f"; {len(order) - MOST:,} with smaller changes are omitted" if len(order) > MOST else ""
        blocks.append(PageTable("The other classes", head, rows[CLASSES:], cards=True, folded=more + left_out))
    sure = sum(d.p < SURE for m in found for d in m.classes)
    lead = "With many classes, some change by chance; p is adjusted for that. "
    lead += (
        "None of the changes is significant (p < 0.05)."
        if not sure
        else f"Marked ● and in full colour: {count_noun(sure, 'significant change')} (p < 0.05)."
    )
    return PageSection("classes", "Changes by class", lead, tuple(blocks))


def largest_drop(drops: dict[int, ClassDrop]) -> float:
    """Return the largest change of a class."""
    return max((abs(d.drop) for d in drops.values() if math.isfinite(d.drop)), default=0.0)


def class_row(name: str, drops: dict[int, ClassDrop], columns: int, top: float) -> tuple[Cell, ...]:
    """Return the row of a class; its shade is its change relative to the largest one."""
    first = next(iter(drops.values()))
    cells = [Cell(name), Cell(f"{first.count:,}"), Cell(format_percent(first.reference))]
    for column in range(columns):
        d = drops.get(column)
        if d is None:
            cells.append(Cell("–"))
            continue
        tint = (1.0 if d.p < SURE else FAINT) * d.drop / top if top and math.isfinite(d.drop) else 0.0
        mark = " ●" if d.p < SURE else ""
        cells.append(
            Cell(format_signed(d.drop) + mark, f"{format_percent(d.candidate)}, {format_probability(d.p)}", tint=tint)
        )
    return tuple(cells)


# ── confusions ──────────────────────────────────────────────────────────────────────────────────────────────────────


def confusions_section(evaluation: Evaluation) -> PageSection | None:
    """Return a table of changed predictions by candidates, the most frequent first."""
    found = [m for m in evaluation.candidates if m.confusions]
    if not found:
        return None
    counts: dict[tuple[str, str, str], dict[int, int]] = {}
    for column, model in enumerate(found):
        for c in model.confusions:
            counts.setdefault((c.label, c.reference, c.candidate), {})[column] = c.count
    order = sorted(counts, key=lambda key: (-sum(counts[key].values()), key))
    labelled = any(label for label, _, _ in order)
    rows = tuple(confusion_row(key, counts[key], len(found), labelled) for key in order[:MOST])
    head = (
        *(("truth",) if labelled else ()),
        "reference predicts",
        "candidate predicts",
        *(("outcome",) if labelled else ()),
    )
    text = frozenset(range(len(head)))
    head = (*head, *(m.name for m in found))
    blocks: list[Block] = [PageTable("Number of samples with each change", head, rows[:CONFUSIONS], text, cards=True)]
    if rows[CONFUSIONS:]:
        more = count_noun(len(rows) - CONFUSIONS, "less frequent change")
        left_out = f"; {len(order) - MOST:,} more are omitted" if len(order) > MOST else ""
        blocks.append(
            PageTable("Less frequent changes", head, rows[CONFUSIONS:], text, cards=True, folded=more + left_out)
        )
    return PageSection("confusions", "Changed predictions", "The most frequent changes.", tuple(blocks))


def confusion_row(key: tuple[str, str, str], counts: dict[int, int], columns: int, labelled: bool) -> tuple[Cell, ...]:
    """Return the row of a change: both predictions, and the number of samples for every candidate."""
    label, reference, candidate = key
    described = (
        [Cell(label), Cell(reference), Cell(candidate), outcome_cell(*key)]
        if labelled
        else [Cell(reference), Cell(candidate)]
    )
    return (*described, *(Cell(f"{counts[i]:,}" if i in counts else "–") for i in range(columns)))


def outcome_cell(label: str, reference: str, candidate: str) -> Cell:
    """Return whether the candidate is now correct, now wrong, or wrong like the reference."""
    if label == candidate:
        return Cell("now correct", status="within")
    return Cell("now wrong", status="over") if label == reference else Cell("wrong in both")


# ── samples ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def samples_section(evaluation: Evaluation) -> PageSection | None:
    """Return the samples that changed most, alternating between candidates; each sample is shown only once."""
    found = [m for m in evaluation.candidates if m.changed]
    if not found:
        return None
    turns = (c for turn in zip_longest(*(m.changed for m in found)) for c in turn if c is not None)
    chosen = {(c.sample, c.path): c for c in reversed(list(turns))}
    samples = [sample_card(c, found) for c in list(reversed(chosen.values()))[:SAMPLES]]
    lead = "The largest changes, with the predictions and confidences of the models."
    return PageSection("samples", "Samples with changed predictions", lead, (SampleCards(tuple(samples)),))


def sample_card(change: ChangedSample, models: list[ModelScore]) -> SampleCard:
    """Return a sample with the predictions of the reference and of every candidate that differs from it."""
    picture = thumbnail(change.path)
    predictions = [model_prediction("reference", change.reference, change.reference_confidence, change.label)]
    for model in models:
        own = next((c for c in model.changed if (c.sample, c.path) == (change.sample, change.path)), None)
        if own is not None:
            predictions.append(model_prediction(model.name, own.candidate, own.candidate_confidence, own.label))
    return SampleCard(change.sample, change.label, picture.uri, picture.missing, picture.pixelated, tuple(predictions))


def model_prediction(model: str, predicted: str, confidence: float, label: str) -> ModelPrediction:
    """Return a prediction, right or wrong if there is a label. Scores that are not classes have no confidence."""
    sure = (
        ""
        if math.isnan(confidence)
        else format_percent(confidence, 1)
        if 0.0 <= confidence <= 1.0
        else format_number(confidence)
    )
    return ModelPrediction(model, predicted, sure, predicted == label if label else None)
