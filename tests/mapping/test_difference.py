"""Differences between maps: none with itself, and each change is found and named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from onnx import helper

from quantkit.errors import ModelError
from quantkit.graph.model import Model
from quantkit.mapping.difference import compare_maps
from quantkit.mapping.network_map import map_of, network_map
from quantkit.mapping.result import NetworkMap
from quantkit.mapping.sources import MapSources
from quantkit.mapping.wording import change_text
from tests.mapping.networks import as_model, quantized, random_models


def pairs(made: NetworkMap) -> list[object]:
    """Cards with their facts."""
    return list(zip(made.cards, made.facts, strict=True))


@settings(max_examples=30)
@given(random_models())
def test_a_map_does_not_differ_from_itself(model: Model) -> None:
    made = map_of(model, MapSources())
    assert compare_maps(pairs(made), pairs(made)) == ()  # type: ignore[arg-type]


@settings(max_examples=30)
@given(random_models(), random_models())
def test_differences_of_the_other_direction_are_the_same_nodes(one: Model, two: Model) -> None:
    first, second = map_of(one, MapSources()), map_of(two, MapSources())
    there, back = compare_maps(pairs(first), pairs(second)), compare_maps(pairs(second), pairs(first))  # type: ignore[arg-type]
    swapped = {"added": "removed", "removed": "added", "changed": "changed"}
    assert len(there) == len(back)
    assert sorted(swapped[c.kind] for c in there) == sorted(c.kind for c in back)


def test_each_change_is_named() -> None:
    nodes = [
        *quantized("x"),
        helper.make_node("MatMul", ["x.dq", "w"], ["m"], "mul"),
        helper.make_node("Relu", ["m"], ["y"], "relu"),
    ]
    plain = as_model(
        [helper.make_node("MatMul", ["x", "w"], ["m"], "mul"), helper.make_node("Abs", ["m"], ["y"], "relu")], ["y"]
    )
    quantized_map = map_of(as_model(nodes, ["y"]), MapSources())
    changes = compare_maps(pairs(map_of(plain, MapSources())), pairs(quantized_map))  # type: ignore[arg-type]
    assert [(c.name, c.kind) for c in changes] == [("mul", "changed"), ("relu", "changed")]
    assert change_text(changes[1].before, changes[1].after) == "operator Abs → Relu"
    (scale,) = {f.scale for c, f in pairs(quantized_map) if c.name == "x"}  # type: ignore[attr-defined]
    assert scale == pytest.approx(0.1)


def test_a_changed_scale_is_found_and_a_rounded_one_is_not(tmp_path: Path) -> None:
    paths = []
    for name, factor in (("a", 1.0), ("b", 2.0), ("c", 1.0 + 1e-5)):
        model = as_model(
            [*quantized("x"), helper.make_node("Relu", ["x.dq"], ["y"], "relu")],
            ["y"],
            s=np.array(0.1 * factor, np.float32),
        )
        paths.append(tmp_path / f"{name}.onnx")
        onnx.save(model.proto, paths[-1])
    found = [network_map(paths[0], against=[other]).difference for other in paths[1:]]
    assert [[(c.name, c.before, c.after) for c in d.changes] for d in found if d is not None] == [
        [("x", {"scale": pytest.approx(0.1)}, {"scale": pytest.approx(0.2)})],
        [],
    ]


def test_another_network_is_refused(tmp_path: Path) -> None:
    one = as_model([helper.make_node("Relu", ["x"], ["y"], "a")], ["y"])
    two = as_model([helper.make_node("Relu", ["x"], ["y"], "b")], ["y"])
    onnx.save(two.proto, tmp_path / "two.onnx")
    with pytest.raises(ModelError, match=r"has no operator of net\.onnx"):
        network_map(replace(one, sha256="1" * 64), against=[tmp_path / "two.onnx"])
