"""Variants of placements that were timed on a GPU, replayed: the evidence for rules of the default placement."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantkit.graph.index import index_graph
from quantkit.qdq.placement import Choices, place_pairs
from tests.support.qdq import every_scale, model_of, noise

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "placement_variants.json"
DOCUMENT: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
FLOAT_RESIZE = {"noskip", "convside"}
"""Variants of the feature pyramid in which no Resize is INT8."""
NOISE = 1.01
"""Times that differ by less are equal: other work kept the CPU cores busy."""


NETWORK = (
    'a = Conv(x, w) l = Resize<mode = "nearest">(a, , two) b = Resize<mode = "nearest">(x, , two) k = Conv(b, v) '
    "m = Add(k, l) r = Relu(m) s = Conv(r, u) c = Concat<axis = 1>(r, s) y = Conv(c, d)"
)
"""An Add whose skip a Resize makes; a Resize and a Concat of tensors that a convolution reads, too."""


def times(network: str, variant: str) -> dict[str, float]:
    """Batch size → median milliseconds of a variant."""
    found = DOCUMENT["networks"][network]["variants"][variant]["milliseconds"]
    return {batch: value["median"] for batch, value in found.items()}


def test_the_page_shows_these_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    from placements.report import rendered_variants

    assert RESULTS.with_suffix(".md").read_text(encoding="utf-8") == rendered_variants(DOCUMENT)


def test_each_variant_was_timed_or_says_why_not() -> None:
    for network in DOCUMENT["networks"].values():
        for found in network["variants"].values():
            assert ("milliseconds" in found) != ("error" in found)
            for value in found.get("milliseconds", {}).values():
                assert value["median"] > 0.0 <= value["spread"]


def test_a_pyramid_builds_exactly_where_no_resize_is_int8() -> None:
    variants = DOCUMENT["networks"]["pyramid"]["variants"]
    assert {name for name, found in variants.items() if "milliseconds" in found} == FLOAT_RESIZE
    for name in variants.keys() - FLOAT_RESIZE:
        assert "any implementation for node /larger/Resize" in variants[name]["error"]
    assert all(times("pyramid", "noskip")[b] <= found for b, found in times("pyramid", "convside").items())


def test_moved_pairs_are_the_fastest_of_the_detector() -> None:
    moved = times("yolov8n", "moves")
    for variant in DOCUMENT["networks"]["yolov8n"]["variants"].keys() - {"moves"}:
        for batch, found in times("yolov8n", variant).items():
            assert moved[batch] < found
    assert times("yolov8n", "default")["8"] / moved["8"] > 1.03


def test_moved_pairs_lose_nothing_for_tensorrt_8() -> None:
    found = DOCUMENT["accuracy"]["yolov8n"]
    assert found["8.6"]["moves"] >= found["8.6"]["default"] >= found["float"]


def test_newer_compilers_need_no_moved_pairs() -> None:
    """Two kernels fewer of 134 are no reason to change what newer versions get."""
    for counts in DOCUMENT["compiled"]["yolov8n"]["architectures"].values():
        assert 0 <= counts["default"]["kernels"] - counts["moves"]["kernels"] <= 2
        assert counts["default"]["int8_products"] == counts["moves"]["int8_products"]


def test_the_default_of_mobilenetv2_is_not_behind() -> None:
    default = times("mobilenetv2", "default")
    for variant in DOCUMENT["networks"]["mobilenetv2"]["variants"]:
        assert all(default[batch] <= NOISE * found for batch, found in times("mobilenetv2", variant).items())


def test_attention_of_this_length_loses_whatever_is_int8() -> None:
    fp16 = times("deit-197", "fp16")
    for variant in DOCUMENT["networks"]["deit-197"]["variants"].keys() - {"fp16"}:
        for batch, found in times("deit-197", variant).items():
            assert found > 1.35 * fp16[batch]


def test_gates_in_int8_are_the_fastest_of_efficientnet() -> None:
    now, fp16 = times("efficientnet-blocks", "squeezed"), times("efficientnet-blocks", "fp16")
    for variant in DOCUMENT["networks"]["efficientnet-blocks"]["variants"].keys() - {"squeezed"}:
        assert all(now[batch] < found for batch, found in times("efficientnet-blocks", variant).items())
    assert fp16["32"] > 1.4 * now["32"]
    assert all(now[b] < found / 1.4 for b, found in times("efficientnet-blocks", "default").items())


def test_a_pair_in_front_of_hardswish_is_faster() -> None:
    now, before = times("mobilenetv3-blocks", "default"), times("mobilenetv3-blocks", "hardswish-float")
    assert now["1"] < before["1"]
    assert now["32"] < before["32"] / 1.3


def test_groups_are_int8_unless_their_kernel_is_slow() -> None:
    for width in (4, 16, 32):
        whole, floats = times(f"groups-{width}", "default"), times(f"groups-{width}", "groups-float")
        assert all(whole[batch] < found for batch, found in floats.items())
    slow, floats = times("groups-24", "default"), times("groups-24", "groups-float")
    assert all(slow[batch] > 2.9 * found for batch, found in floats.items())
    gated = times("regnety-blocks", "gates")
    assert all(gated[batch] > 3.9 * found for batch, found in times("regnety-blocks", "default").items())


def test_what_gates_in_int8_cost_is_ahead_of_other_tools() -> None:
    """The same networks, images and calibration as in rules.json."""
    rules = json.loads((RESULTS.parent / "rules.json").read_text(encoding="utf-8"))
    for network, found in DOCUMENT["readers"]["networks"].items():
        peers = [row["sqnr_db"] for name, row in rules["networks"][network]["peers"].items() if name != "FP32"]
        assert found["readers-float"]["sqnr_db"] > found["default"]["sqnr_db"] > max(peers) + 1


@pytest.mark.parametrize(
    ("variant", "behind"),
    [
        ("default", {"b": [0], "c": [0]}),
        ("unmoved", {}),
        ("skip", {"m": [1], "b": [0], "c": [0]}),
        ("convside", {"m": [0], "b": [0], "c": [0]}),
        ("before", {"l": [0], "b": [0], "c": [0]}),
    ],
)
def test_a_variant_differs_from_the_default_by_its_rule(
    variant: str, behind: dict[str, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    import placement_variants

    named = {name: noise(4, 4, 1, 1) for name in "wvu"} | {"d": noise(4, 8, 1, 1)}
    two = np.array([1, 1, 2, 2], np.float32)
    model = model_of(f"(float[1, 4, 8, 8] x) => (float[1, 4, 16, 16] y) {{ {NETWORK} }}", two=two, **named)
    wires = index_graph(model.proto)
    found = dict(place_pairs(wires, every_scale(model), Choices(tensorrt=8)).inputs)
    placement_variants.VARIANTS[variant].rule(wires, found)
    others = {n: list(places) for n, places in found.items() if wires.nodes[n].op_type != "Conv"}
    assert {wires.nodes[n].output[0]: places for n, places in others.items()} == behind
