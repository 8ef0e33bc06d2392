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
    if "explicit" in document:
        yield from explicit(document["explicit"], DEFAULT)
    if "explicit variants" in document:
        yield from explicit(document["explicit variants"], VARIANTS)
    if "deconvolution" in document:
        yield from deconvolution(document["deconvolution"]["figures"])
    if "constants" in document:
        yield from constants(document["constants"])


def streaming(figures: Mapping[str, Any]) -> Iterator[str]:
    """How fast data streams into a calibration."""
    yield from ["## Streaming", ""]
    yield f"{figures['images']:,} JPEG files of 500×400 ({figures['mean_kilobytes']} kB), one MaxPool at 224×224:"
    yield from ["", "| | seconds |", "|---|---|"]
    yield from (f"| {name} | {value:.2f} |" for name, value in figures["seconds"].items())
    yield ""
    floor, fastest = figures["ratio_to_floor"], figures["ratio_to_fastest_decoding"]
    yield f"{floor:.2f} × the larger of decoding alone on all cores and calibrating from pinned arrays;"
    yield f"{fastest:.2f} × decoding alone with the number of threads that is fastest."
    peer, ahead = figures["ratio_to_polygraphy"], figures["ratio_to_polygraphy_read_ahead"]
    yield f"{peer:.2f} × Polygraphy with the same decoding on all cores in its load_data,"
    yield f"{ahead:.2f} × Polygraphy where quantkit reads ahead for it."
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


DEFAULT = (
    "## Q/DQ models",
    "Engines of Q/DQ models beside FP16, the engine of a calibration table, and modelopt 0.47, in one run",
    "quantkit's models: as quantize makes them with data for TensorRT 8.6, with float weights in the file.",
)
VARIANTS = (
    "## Other forms of Q/DQ models",
    "Another run, with weights in either form and the first convolution float",
    "quantkit's models: MSE rule, no repairs.",
)


def explicit(section: Mapping[str, Any], about: tuple[str, str, str]) -> Iterator[str]:
    """Q/DQ models beside FP16 and a table, in one run. about: title, what ran, how the models were made."""
    title, ran, made = about
    yield from [title, "", ran]
    yield f"({told(section['machine'])}); graphs, optimization level 1, batches 1 … 256."
    yield f"onnxruntime: the same model on a processor, with fake quantization. {made}"
    yield from [
        "",
        "| network | model | top-1 | by onnxruntime | ms at 1 | ms at 32 | ms at 256 | layers |",
        "|---" * 8 + "|",
    ]
    errors = []
    for name, subjects in section["figures"].items():
        for subject, figures in subjects.items():
            if "error" in figures:
                errors.append((name, subject, figures["error"]))
                continue
            times = " | ".join(f"{ms['graph']:.3f}" for ms in figures["latency_ms"].values())
            layers = ", ".join(f"{count} {precision}" for precision, count in figures["precisions"].items())
            there = f"{figures['top1_onnxruntime']:.2%}" if "top1_onnxruntime" in figures else ""
            yield f"| {name} | {subject} | {figures['top1']:.2%} | {there} | {times} | {layers} |"
    yield ""
    for name, subject, error in errors:
        lines = [line.strip() for line in error.splitlines() if line.strip()]
        reason = next((line for line in reversed(lines) if "→" not in line), lines[0])
        yield f"- {name}, {subject}, is not built: {reason}"
    yield from [""] if errors else []


def deconvolution(figures: Mapping[str, Any]) -> Iterator[str]:
    """Which axis TensorRT takes for the weights of a ConvTranspose."""
    yield from ["## Weights of a ConvTranspose", ""]
    yield "Engine against onnxruntime, one quantized ConvTranspose of 32 to 48 channels, by the axis of its scales:"
    yield ", ".join(f"{how} {decibels:.1f} dB" for how, decibels in figures["sqnr_db"].items()) + "."
    yield ""


def constants(section: Mapping[str, Any]) -> Iterator[str]:
    """Weights behind an Identity, and tables with scale 0."""
    figures = section["figures"]
    yield from ["## Weights behind an Identity", ""]
    yield "A network with the layers of ResNet-50 at 224 and patterned weights, optimization level 1, graphs"
    yield from [f"({told(section['machine'])}).", "", "| engine | ms at 1 | ms at 32 | kernels |", "|---|---|---|---|"]
    for name, engine in figures.get("behind a node", {}).items():
        times = " | ".join(f"{ms['graph']:.3f}" for ms in engine["latency_ms"].values())
        yield f"| {name} | {times} | {engine.get('kernels', '')} |"
    yield from ["", "## Tables with scale 0", ""]
    for name, outcome in figures["scale 0"].items():
        what = f"fails: {outcome['error'].splitlines()[0]}" if "error" in outcome else "builds"
        yield f"- {name}, {len(outcome.get('zero_scales', ()))} scales are 0: {what}"
    yield ""
