"""Attribution, minimum cut and choice, replayed from engines that ran on an H200 with TensorRT 8.6.

The recordings hold graphs without weights, the layers as the engine inspector lists them, their times by TensorRT's
profiler, and the rounds of the whole engines. That of ResNet-50 lacks the inspector: only the names of its layers.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from quantkit.backends.tensorrt.engine_layers import LayerContext, engine_layers
from quantkit.backends.tensorrt.layer_profile import ProfiledLayer, profiled_layers, without_overhead
from quantkit.engines.round_times import RoundTimes
from quantkit.graph.index import GraphIndex
from quantkit.tuning.speed.candidate import EngineKind, SpeedCandidate
from quantkit.tuning.speed.engine_choice import choose_candidate, fastest_by_batch, ties
from quantkit.tuning.speed.implicit import has_int8_layer
from quantkit.tuning.speed.lab import weighted_profile
from quantkit.tuning.speed.layer_nodes import placed_pairs, with_known_nodes
from quantkit.tuning.speed.regions import RegionCosts, network_index, region_costs

DATA = Path(__file__).parent / "data"
NETWORKS = sorted(path.name.partition(".")[0] for path in DATA.glob("*.json.gz"))
KINDS = {"fp16": EngineKind.FP16, "qdq": EngineKind.QDQ, "table": EngineKind.TABLE}


@cache
def recording(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(gzip.decompress((DATA / f"{name}.json.gz").read_bytes()))
    return found


@cache
def graph(name: str, kind: str) -> onnx.ModelProto:
    return onnx.load_from_string(gzip.decompress(base64.b64decode(recording(name)["graphs"][kind])))


@cache
def index(name: str) -> GraphIndex:
    return network_index(graph(name, "float"))


def batches(name: str) -> list[int]:
    return [int(batch) for batch in recording(name)["kinds"]["fp16"]["whole"]]


def inspector(name: str, kind: str) -> dict[str, Any]:
    """The inspector's document, as far as it was recorded."""

    def tensors(found: list[Any]) -> list[dict[str, Any]]:
        return [{"Name": n, "Format/Datatype": f"Row major {t}", "Dimensions": d} for n, t, d in found]

    layers = recording(name)["kinds"][kind]["layers"]
    return {
        "Layers": [
            {"Name": title, "LayerType": layer, "Inputs": tensors(read), "Outputs": tensors(made), "TacticName": tactic}
            | ({"Metadata": metadata} if read else {})
            for title, layer, metadata, read, made, tactic in layers
        ]
    }


def median(name: str, kind: str, batch: int) -> float:
    return float(np.median(recording(name)["kinds"][kind]["whole"][str(batch)]))


def profile(name: str, kind: str, sizes: list[int]) -> tuple[ProfiledLayer, ...]:
    wires = index(name)
    nodes = [wires.name(number) for number in range(len(wires.nodes))]
    times = recording(name)["kinds"][kind]["profile"]
    whole = {
        batch: without_overhead(
            profiled_layers(inspector(name, kind), times[str(batch)], nodes), median(name, kind, batch)
        )
        for batch in sizes
    }
    return weighted_profile(whole, {batch: median(name, "fp16", batch) for batch in sizes})


def costs(name: str, sizes: list[int]) -> RegionCosts:
    floats, quantized = (profile(name, kind, sizes) for kind in ("fp16", "qdq"))
    return region_costs(index(name), graph(name, "qdq"), floats, quantized, max(sizes))


def candidates(name: str, sizes: list[int]) -> list[SpeedCandidate]:
    return [
        SpeedCandidate(kind, KINDS[kind], "", times={b: RoundTimes(tuple(found["whole"][str(b)])) for b in sizes})
        for kind, found in recording(name)["kinds"].items()
    ]


@pytest.mark.parametrize("name", NETWORKS)
def test_all_time_is_attributed(name: str) -> None:
    """Regions, borders and what lies outside add up to the engines, and every node has one region."""
    for sizes in ([batch] for batch in batches(name)):
        found = costs(name, sizes)
        assert found.cost(()) == pytest.approx(1.0, rel=0.01)
        ratio = median(name, "qdq", sizes[0]) / median(name, "fp16", sizes[0])
        assert found.cost(found.parts) == pytest.approx(ratio, rel=0.01)
        members = [node for nodes in found.members.values() for node in nodes]
        assert len(members) == len(set(members))
        assert set(placed_pairs(index(name), graph(name, "qdq")).nodes) <= set(members)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_cut_is_never_predicted_slower_than_either_engine(name: str) -> None:
    for sizes in (*([batch] for batch in batches(name)), batches(name)):
        found = costs(name, sizes)
        kept = found.cheapest()
        split = found.int8_regions(kept)
        assert found.float_nodes(split) == kept
        assert found.cost(split) <= min(found.cost(()), found.cost(found.parts)) + 1e-9
        assert costs(name, sizes).cheapest() == kept, "the same times give the same cut"


def test_depthwise_convolutions_and_the_first_one_of_convnext_stay_float() -> None:
    """They have no INT8 kernel there: their pairs cost a kernel to round and one to undo it."""
    found = costs("convnext-tiny", [32])
    kept = found.cheapest()
    assert "/stem/stem.0/Conv" in kept
    assert sum("stages.2" in node and "conv_dw" in node for node in kept) == 9, "all of the longest stage"
    products = [node for node in kept if "mlp/fc" in node]
    assert all("stages.0" in node for node in products), "the others are nearly twice as fast in INT8"
    assert found.cost(found.int8_regions(kept)) < 0.97 * found.cost(found.parts)


def test_deit_is_faster_without_any_pair() -> None:
    found = costs("deit-small", [1, 32])
    assert found.int8_regions(found.cheapest()) == frozenset()


def test_resnet_50_is_faster_in_int8_nearly_everywhere() -> None:
    found = costs("resnet50", [1, 32])
    kept = found.cheapest()
    assert len(kept) <= 3
    assert found.cost(found.int8_regions(kept)) > 0.97 * found.cost(found.parts)


def test_regions_that_are_compiled_as_one_get_their_nodes() -> None:
    """TensorRT names only the first and the last of them, or a tensor."""
    wires, placed = index("convnext-tiny"), placed_pairs(index("convnext-tiny"), graph("convnext-tiny", "qdq"))
    layers = with_known_nodes(wires, placed, profile("convnext-tiny", "qdq", [32]))
    regions = [layer for layer in layers if layer.kind == "Myelin"]
    assert len(regions) > 15
    assert all(layer.nodes for layer in regions)
    block = next(layer for layer in regions if "stages.1/blocks/blocks.0/Add" in layer.name)
    assert sum("mlp/fc" in node and "MatMul" in node for node in block.nodes) == 2
    rounding = [layer for layer in layers if layer.name.endswith("_Quantize")]
    assert all(len(layer.nodes) == 1 and layer.nodes[0] in placed.pairs for layer in rounding)
    named = [node for layer in layers for node in layer.nodes if node not in placed.pairs]
    assert len(named) == len(set(named)), "no node belongs to two layers"


def test_what_the_profiler_adds_is_taken_off() -> None:
    wires = index("resnet50")
    nodes = [wires.name(number) for number in range(len(wires.nodes))]
    times = recording("resnet50")["kinds"]["fp16"]["profile"]["1"]
    layers = profiled_layers(inspector("resnet50", "fp16"), times, nodes)
    whole = median("resnet50", "fp16", 1)
    assert sum(layer.milliseconds for layer in layers) > 1.3 * whole
    made = without_overhead(layers, whole)
    assert math.fsum(layer.milliseconds for layer in made) == pytest.approx(whole)
    order = sorted(range(len(layers)), key=lambda n: layers[n].milliseconds)
    assert [made[n].milliseconds for n in order] == sorted(layer.milliseconds for layer in made)


def test_tensorrt_may_choose_no_int8_at_all() -> None:
    found = engine_layers(inspector("convnext-tiny", "table"), LayerContext({}, int8=True, table=True))
    assert not has_int8_layer(found)
    assert has_int8_layer(engine_layers(inspector("convnext-tiny", "qdq"), LayerContext({}, int8=True)))


@pytest.mark.parametrize(
    ("name", "sizes", "wanted"),
    [
        ("resnet50", [1, 32], "qdq"),  # the table's engine is 1.7 % faster, which may be chance: pairs are preferred
        ("resnet50", [1], "table"),  # and 3.9 % faster at batch 1
        ("convnext-tiny", [32], "qdq"),
        ("convnext-tiny", [1], "fp16"),
        ("convnext-tiny", [1, 32], "fp16"),  # INT8 is slower at batch 1
        ("deit-small", [1, 32], "fp16"),
    ],
)
def test_the_engine_that_is_chosen(name: str, sizes: list[int], wanted: str) -> None:
    found = candidates(name, sizes)
    chosen = choose_candidate(found)
    assert chosen is not None
    assert chosen.name == wanted
    if (name, sizes) == ("resnet50", [1, 32]):
        assert ties(found, chosen) == ("table",)


def test_the_fastest_for_each_batch_size_alone() -> None:
    assert fastest_by_batch(candidates("convnext-tiny", [1, 32])) == {1: "fp16", 32: "qdq"}
