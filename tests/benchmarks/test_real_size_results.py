"""Networks of real size on a GPU, replayed: what the pages may say about them."""

from __future__ import annotations

import json
from pathlib import Path

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "real_size.json"
DOCUMENT = json.loads(RESULTS.read_text(encoding="utf-8"))


def test_every_figure_names_its_machine_and_was_measured() -> None:
    assert DOCUMENT["machine"] == "NVIDIA H200, TensorRT 8.6.0"
    for network in DOCUMENT["networks"].values():
        for engine in network.values():
            for figures in engine["milliseconds"].values():
                assert 0 < figures["median"] <= figures["p90"]


def test_int8_pays_for_resnet50_and_not_for_deit_small() -> None:
    """The same placement, two directions: speed has to be measured on the target."""

    def ratio(name: str, batch: str) -> float:
        kinds = DOCUMENT["networks"][name]
        return float(kinds["fp16"]["milliseconds"][batch]["median"] / kinds["qdq"]["milliseconds"][batch]["median"])

    assert ratio("resnet50", "1") > 1.3
    assert ratio("resnet50", "32") > 1.4
    assert ratio("deit-small", "1") < 0.8
    assert ratio("deit-small", "32") < 0.6
