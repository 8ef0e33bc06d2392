"""The GPUs on the page are those of the registry, with their figures and sources."""

from __future__ import annotations

import re

from quantkit.compiling.gpus import GPUS, Gpu
from tests.support.networks import ROOT


def row(gpu: Gpu) -> list[str]:
    peaks = [f"{gpu.peaks[kind]:g}" for kind in ("INT8", "FP16", "TF32", "FP32")]
    nearest = " (the nearest)" if gpu.nearest else ""
    return [f"`{gpu.key}`", gpu.name, f"{gpu.architecture}{nearest}", *peaks, f"{gpu.bandwidth:g}"]


def test_the_page_lists_every_gpu_with_its_sources() -> None:
    page = (ROOT / "docs" / "compile.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if re.match(r"\| `\w+` \| ", line)]
    assert [[cell.strip() for cell in line.strip("|").split("|")][:8] for line in lines] == [
        row(gpu) for gpu in GPUS.values()
    ]
    for gpu, line in zip(GPUS.values(), lines, strict=True):
        assert re.findall(r"\]\((.*?)\)", line) == list(dict.fromkeys(gpu.sources))
        assert all(source in gpu.figures for source in gpu.sources)
