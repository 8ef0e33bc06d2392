"""The results as a page, and the laws that they are held to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

KINDS = ("fp16", "table", "modelopt", "default", "tuned")
TITLES = {
    "fp16": "FP16", "table": "INT8 by a table", "modelopt": "modelopt 0.47", "default": "quantkit", "tuned": "tuned",
}  # fmt: skip
GAIN = 1.1
"""A tuned engine is to be this much faster than FP16 wherever any engine is."""


def timed_rows(document: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield network, batch size, and engine → its times, for every row that was measured."""
    for name, network in document["networks"].items():
        times = network.get("milliseconds", {})
        batches = dict.fromkeys(batch for found in times.values() for batch in found)
        for batch in batches:
            yield name, batch, {kind: found[batch] for kind, found in times.items() if batch in found}


def rendered(document: Mapping[str, Any]) -> str:
    """Return the page."""
    lines = [
        "# Placements side by side",
        "",
        "All engines of a row take turns, as CUDA graphs: the median of nine rounds in ms, and half of the distance",
        "between their quartiles. Networks with random weights tell times and nothing else. Written by",
        "`benchmarks/placement.py`.",
        "",
        f"{document['machine']}, builder optimization level {document['level']}, {document['date']}.",
        "",
        "| network | batch | " + " | ".join(TITLES[kind] for kind in KINDS) + " | tuned against FP16 |",
        "|---|---|" + "---|" * (len(KINDS) + 1),
    ]
    for name, batch, times in timed_rows(document):
        cells = [time_text(times.get(kind)) for kind in KINDS]
        both = "tuned" in times and "fp16" in times
        gain = f"{times['fp16']['median'] / times['tuned']['median']:.2f} ×" if both else "–"
        lines.append(f"| {name} | {batch} | {' | '.join(cells)} | {gain} |")
    lines += [*tuning_lines(document), *accuracy_lines(document)]
    for sitting in document.get("earlier", {}).values():
        lines += ["", f"Earlier, {sitting['conditions']}:", "", *earlier_lines(sitting)]
    return "\n".join(lines) + "\n"


def earlier_lines(sitting: Mapping[str, Any]) -> list[str]:
    """Return the rows of an earlier sitting, whose engines were built in another way."""
    rows = list(timed_rows(sitting))
    kinds = dict.fromkeys(kind for _, _, times in rows for kind in times)
    lines = ["| network | batch | " + " | ".join(TITLES.get(kind, kind) for kind in kinds) + " |"]
    lines.append("|---|---|" + "---|" * len(kinds))
    for name, batch, times in rows:
        lines.append(f"| {name} | {batch} | {' | '.join(time_text(times.get(kind)) for kind in kinds)} |")
    return lines


def time_text(times: Mapping[str, Any] | None) -> str:
    """Return for example `0.142 ± 0.4 %`, or a dash."""
    return f"{times['median']:.3f} ± {50 * times['spread']:.1f} %" if times else "–"


def tuning_lines(document: Mapping[str, Any]) -> list[str]:
    """Return what tuning took, and what it chose."""
    lines = ["", "| network | chosen | nodes in float | builds | minutes | again |", "|---|---|---|---|---|---|"]
    for name, network in document["networks"].items():
        if tuning := network.get("tuning"):
            again = network.get("repeat", {}).get("chosen", "–")
            kept = next(len(c["kept"]) for c in tuning["candidates"] if c["name"] == tuning["chosen"])
            minutes = tuning.get("all_seconds", tuning["seconds"]) / 60
            builds = tuning["builds"]
            lines.append(f"| {name} | {tuning['chosen']} | {kept} | {builds} | {minutes:.1f} | {again} |")
    return lines if len(lines) > 3 else []


def accuracy_lines(document: Mapping[str, Any]) -> list[str]:
    """Return how many images the engines of the labelled networks classify correctly."""
    lines = [
        "",
        "| network | FP32 | " + " | ".join(TITLES[kind] for kind in KINDS) + " |",
        "|---|---|" + "---|" * len(KINDS),
    ]
    for name, network in document["networks"].items():
        if counted := network.get("correct"):
            engines, images = counted["engines"], counted["images"]
            cells = [f"{100 * engines[k] / images:.2f} %" if k in engines else "–" for k in ("fp32", *KINDS)]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines if len(lines) > 3 else []
