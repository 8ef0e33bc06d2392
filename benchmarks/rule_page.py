"""The page of `rules.py`, and which default would have been chosen without each network. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

SINGLE = ("wmse", "mse", "minmax", "entropy", "percentile:99.99")
DEFAULT = "wmse"
WITH_DATA = "with data"

Networks = Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]


def counts_of(networks: Networks) -> list[str]:
    """Return the numbers of calibration images, the most first."""
    return sorted({count for figures in networks.values() for count in figures if count != "peers"}, key=int)[::-1]


def candidates_of(networks: Networks, counts: Iterable[str]) -> list[str]:
    """Return what could be the default by statistics alone: what every network was measured by with all the counts."""
    found = set.intersection(*(set(figures[count]) for figures in networks.values() for count in counts))
    return sorted(way for way in found if way != WITH_DATA and not way.startswith("float16"))


def counts_of_candidates(networks: Networks) -> list[str]:
    """Return the numbers of images with which more than the rules that users can name was measured."""
    shared = [c for c in counts_of(networks) if all(c in figures for figures in networks.values())]
    return [c for c in shared if set(candidates_of(networks, [c])) > set(SINGLE)]


def best_single(figures: Mapping[str, Mapping[str, float]]) -> tuple[str, float]:
    """Return the rule of the highest SQNR, and it in dB."""
    name = max(SINGLE, key=lambda rule: figures[rule]["sqnr_db"])
    return name, figures[name]["sqnr_db"]


def below_best(figures: Mapping[str, Mapping[str, float]], way: str) -> float:
    """Return by how many dB a way is below the best of the single rules; below 0 where it is better, NaN where it was
    not measured."""
    return best_single(figures)[1] - figures.get(way, {"sqnr_db": math.nan})["sqnr_db"]


def chosen_default(networks: Networks, counts: Iterable[str], without: str | None = None) -> str:
    """Return the candidate that is least below the best, by the mean over networks and counts, `without` one."""
    counts = list(counts)
    others = [figures for name, figures in networks.items() if name != without]

    def loss(way: str) -> float:
        return sum(below_best(figures[count], way) for figures in others for count in counts)

    return min(candidates_of(networks, counts), key=loss)


def better_than_peers(figures: Mapping[str, Mapping[str, Mapping[str, float]]], way: str) -> bool:
    """Return whether a way has a higher SQNR than every peer that made a model."""
    ours = figures["512"][way]["sqnr_db"]
    return all(ours > figures["peers"][peer]["sqnr_db"] for peer in figures["peers"] if peer != "FP32")


def peers_of(networks: Networks) -> list[str]:
    """Return the names of the other tools' models."""
    return sorted({peer for figures in networks.values() for peer in figures.get("peers", {})} - {"FP32"})


def cell(figures: Mapping[str, float] | None) -> str:
    """Return drop, agreement and SQNR as a table's cell."""
    return f"{figures['sqnr_db']:.1f} ({figures['drop']:+.1f}, {figures['agreement']:.1f})" if figures else "–"


def default_section(networks: Networks) -> list[str]:
    """Return the part about the default that is chosen without each network; nothing without candidates."""
    counts = counts_of_candidates(networks)
    if not counts:
        return []
    text = [
        "",
        "## The default, chosen without the network that it is applied to",
        "",
        "Candidates: the single rules, and least squared error with clipped values that count 1 … 3 times (and 28/n"
        " more with n images), channels weighted by use (`wmse`) or equally (`mse`). Chosen is what is least below the"
        " best single rule, by the mean over all other networks and these counts.",
        "",
    ]
    text += ["| network | chosen without it | " + " | ".join(f"below the best, {count}" for count in counts) + " |"]
    text += ["|---|---|" + "---|" * len(counts)]
    for name, figures in networks.items():
        chosen = chosen_default(networks, counts, name)
        below = " | ".join(f"{below_best(figures[count], chosen):.1f}" for count in counts)
        text.append(f"| {name} | {chosen} | {below} |")
    return text


def rendered(document: Mapping[str, Any]) -> str:
    """Return the page."""
    networks: Networks = document["networks"]
    counts = counts_of(networks)
    machine = document["machine"]
    text = [
        "# Rules over many networks",
        "",
        f"{document['images']:,} CIFAR-10 test images that nothing was fitted to, {document['compositions']}"
        f" compositions for unet and detector; onnxruntime {document['onnxruntime']} with fake quantization,"
        f" {machine['date'][:10]}.",
        "SQNR of the outputs in dB; in brackets the drop in points and the agreement with FP32 in %. Calibration takes"
        f" the first of 512 images; Q/DQ is placed as for TensorRT {document['tensorrt']}. Written by"
        " `benchmarks/rules.py`; networks: `benchmarks/train_architectures.py`.",
        *([document["remark"]] if "remark" in document else []),
    ]
    for count in counts:
        head = f"| network | {WITH_DATA} | {' | '.join(SINGLE)} | below the best: default | with data |"
        text += ["", f"## {count} calibration images", "", head, "|---|" + "---|" * (len(SINGLE) + 3)]
        for name, figures in networks.items():
            if count not in figures:
                continue
            found = figures[count]
            below = " | ".join(f"{below_best(found, way):.1f}".replace("nan", "–") for way in (DEFAULT, WITH_DATA))
            cells = " | ".join(cell(found.get(way)) for way in (WITH_DATA, *SINGLE))
            text.append(f"| {name} | {cells} | {below} |")
    text += ["", "## Other tools, 512 calibration images", ""]
    peers = peers_of(networks)
    text += [f"| network | {WITH_DATA} | {DEFAULT} | {' | '.join(peers)} |", "|---|" + "---|" * (len(peers) + 2)]
    for name, figures in networks.items():
        ours, theirs = figures.get(counts[0], {}), figures.get("peers", {})
        cells = [*(cell(ours.get(way)) for way in (WITH_DATA, DEFAULT)), *(cell(theirs.get(peer)) for peer in peers)]
        text.append(f"| {name} | {' | '.join(cells)} |")
    text += default_section(networks)
    most = {name: figures.get("512", {}) for name, figures in networks.items()}
    halves = {name: found for name, found in most.items() if f"float16, {DEFAULT}" in found}
    if halves:
        text += ["", "## Networks in float16, 512 calibration images", ""]
        text += ["| network | statistics | with data |", "|---|---|---|"]
    for name, found in halves.items():
        cells = [f"{cell(found.get(f'float16, {w}'))}, float32 {cell(found.get(w))}" for w in (DEFAULT, WITH_DATA)]
        text.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(text) + "\n"
