"""results/gpu_acceptance.json as Markdown; nothing is measured here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

NETWORKS = ("resnet20", "mobilenetv2", "vit", "ultraface")


def rendered(document: Mapping[str, Any]) -> str:
    """The page."""
    return "\n".join(["# On a GPU", "", *introduction(document), *parts(document)]).rstrip() + "\n"


def introduction(document: Mapping[str, Any]) -> Iterator[str]:
    """Where the figures come from, and what has not been run."""
    for text in dict.fromkeys(told(section["machine"]) for section in document.values()):
        yield f"- {text}"
    missing = [name for name in ("distributions", "streaming", "behaviour", *NETWORKS) if name not in document]
    if missing:
        yield f"- not run yet: {', '.join(missing)}"
    yield ""


def told(machine: Mapping[str, Any]) -> str:
    """One line about a machine."""
    return f"{machine['gpu']}, TensorRT {machine['tensorrt']}, {machine['cores']} cores, {machine['date']}"


def parts(document: Mapping[str, Any]) -> Iterator[str]:
    """A part for each section that was run."""
    if "distributions" in document:
        tables = document["distributions"]["figures"]["tables"]
        equal = sum(t["equal"] for t in tables.values())
        calls = sum(t["get_batch_calls_when_reused"] for t in tables.values())
        yield from ["## TensorRT's golden tables", ""]
        yield f"{equal} of {len(tables)} tables written through the calibrator classes equal TensorRT's byte for byte;"
        yield from [f"reused, TensorRT asked for {calls} batches.", ""]
    if "streaming" in document:
        yield from streaming(document["streaming"]["figures"])
    for name in NETWORKS:
        if name in document:
            yield from network(name, document[name]["figures"])


def streaming(figures: Mapping[str, Any]) -> Iterator[str]:
    """How fast data streams into a calibration."""
    yield from ["## Streaming", ""]
    yield f"{figures['images']:,} JPEG files of 500×400 ({figures['mean_kilobytes']} kB), one MaxPool at 224×224:"
    yield from ["", "| | seconds |", "|---|---|"]
    yield from (f"| {name} | {value:.2f} |" for name, value in figures["seconds"].items())
    yield ""
    floor, peer = figures["ratio_to_floor"], figures["ratio_to_polygraphy"]
    yield f"{floor:.2f} × the larger of decoding alone and calibrating from pinned arrays, {peer:.2f} × Polygraphy."
    yield f"GPU memory: {figures['device_bytes'] / figures['input_batch_bytes']:.0f} input batches."
    yield ""


def network(name: str, figures: Mapping[str, Any]) -> Iterator[str]:
    """A network through every precision."""
    tables, engines = figures["tables"], figures["engines"]
    yield from [f"## {name}", ""]
    there, here = tables["tensorrt"]["seconds"], tables["onnxruntime"]["seconds"]
    yield f"Calibration on the same host: TensorRT {there:.1f} s, onnxruntime on the CPU {here:.2f} s."
    for what, agreement in tables["agreement"].items():
        share, worst = agreement["within_1e-5"], agreement["worst"]
        yield f"{what}: {share:.1%} of {agreement['common']} tensors within 1e-5, worst {worst:.1%}."
    first = next(iter(engines.values()))
    batches = list(first["latency_ms"])
    quality = ["top-1", "as FP32"] if "top1" in first else [f"SQNR {output}, dB" for output in first["sqnr_db"]]
    yield ""
    yield f"| | {' | '.join(quality)} | {' | '.join(f'ms at {b}' for b in batches)} | layers | build, s |"
    yield "|---" * (3 + len(quality) + len(batches)) + "|"
    for way, engine in engines.items():
        shown = (
            [f"{engine['top1']:.2%}", f"{engine['agreement_with_fp32']:.2%}"]
            if "top1" in engine
            else [f"{value:.1f}" for value in engine["sqnr_db"].values()]
        )
        times = [f"{engine['latency_ms'][b]['graph']:.3f}" for b in batches]
        layers = ", ".join(f"{count} {precision}" for precision, count in engine["precisions"].items())
        yield f"| {way} | {' | '.join(shown)} | {' | '.join(times)} | {layers} | {engine['build_seconds']:.1f} |"
    yield ""
    yield "Latency is the device's time with a CUDA graph; engines of optimization level 1, for batches 1 … 256."
    yield ""
