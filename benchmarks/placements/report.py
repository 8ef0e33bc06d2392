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
    """Return for example `0.142 ± 0.4 %`, without a spread where the rounds are not known, or a dash."""
    if not times:
        return "–"
    spread = "" if times["spread"] is None else f" ± {50 * times['spread']:.1f} %"
    return f"{times['median']:.3f}{spread}"


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


def rendered_variants(document: Mapping[str, Any]) -> str:
    """Return the page of placements that were built to find out which rule is right."""
    lines = [
        "# Variants of placements",
        "",
        "What other places of Q/DQ pairs cost or gain, where the default was slower than another tool or did not",
        "build. Times are ms, the median of nine rounds and half of the distance between their quartiles. Engines of",
        "one sitting took turns. `benchmarks/placement_variants.py` makes, builds and times such variants.",
        "",
        f"{document['machine']}, builder optimization level {document['level']}, {document['date']}.",
        f"{document['conditions']}.",
    ]
    for name, network in document["networks"].items():
        variants = network["variants"]
        batches = dict.fromkeys(b for found in variants.values() for b in found.get("milliseconds", ()))
        lines += ["", f"## {name}", "", f"{network['about']}.", ""]
        lines.append("| variant | pairs | " + " | ".join(f"batch {b}" for b in batches) + " | kernels | sitting |")
        lines.append("|---|---|" + "---|" * (len(batches) + 2))
        for variant, found in variants.items():
            times = found.get("milliseconds", {})
            cells = [time_text(times.get(b)) for b in batches]
            built = f"{found['kernels']} | {found['sitting']}" if times else f"{found['error']} | –"
            lines.append(f"| {variant} | {found['about']} | {' | '.join(cells)} | {built} |")
    accuracy = [*variants_accuracy_lines(document), *readers_accuracy_lines(document["readers"])]
    return "\n".join([*lines, *accuracy, *variants_compiled_lines(document)]) + "\n"


def variants_accuracy_lines(document: Mapping[str, Any]) -> list[str]:
    """Return what the variants of labelled networks detect, each quantized for two versions of TensorRT."""
    lines = []
    for name, found in document["accuracy"].items():
        head = f"{found['metric']}, {found['images']} {found['data']}, by {found['runner']}; float {found['float']:.2f}"
        lines += [
            "",
            f"## Accuracy of {name}",
            "",
            f"{head}.",
            "",
            "| for TensorRT | default | moves |",
            "|---|---|---|",
        ]
        lines += [f"| {v} | {found[v]['default']:.2f} | {found[v]['moves']:.2f} |" for v in ("8.6", "10")]
    return lines


def readers_accuracy_lines(found: Mapping[str, Any]) -> list[str]:
    """Return what INT8 behind depthwise convolutions costs, for TensorRT 8."""
    lines = [
        "",
        "## Accuracy of gates and HardSwish in INT8",
        "",
        f"For TensorRT 8, {found['images']:,} {found['data']} images after {found['calibration_images']} for",
        f"calibration, by {found['runner']}. Networks of `benchmarks/train_architectures.py`.",
        "",
        "| network | variant | drop, points | agreement, % | SQNR, dB |",
        "|---|---|---|---|---|",
    ]
    for network, variants in found["networks"].items():
        for name, f in variants.items():
            lines.append(f"| {network} | {name} | {f['drop']:.1f} | {f['agreement']:.1f} | {f['sqnr_db']:.1f} |")
    return lines


def variants_compiled_lines(document: Mapping[str, Any]) -> list[str]:
    """Return the kernels that a compiler without a GPU makes of the variants."""
    lines = []
    for name, found in document["compiled"].items():
        lines += ["", f"## Kernels of {name} by {found['compiler']}", ""]
        lines += ["| for | variant | kernels | INT8 products | pools |", "|---|---|---|---|---|"]
        for gpu, variants in found["architectures"].items():
            for variant, counts in variants.items():
                products = f"{counts['int8_products']} of {counts['products']}"
                lines.append(f"| {gpu} | {variant} | {counts['kernels']} | {products} | {counts['pools']} |")
    return lines
