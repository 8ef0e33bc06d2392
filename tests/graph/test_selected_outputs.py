"""Selected values, and what is compared in their place."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from quantkit.graph.selected_outputs import comparable_tensors, selected_outputs
from tests.support.networks import network

WEIGHTS = {"w": np.ones((6, 4), np.float32), "k": np.array([3]), "zero": np.float32(0), "all": np.array([-1])}


def test_outputs_behind_a_selection_are_found() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("TopK", ["h", "k"], ["best", "places"]),
        helper.make_node("GatherElements", ["h", "places"], ["again"], axis=1),
        helper.make_node("Sigmoid", ["best"], ["other"]),
    ]
    names = ["h", "best", "places", "again", "other"]
    proto = network(nodes, {"x": ["N", 6]}, names, WEIGHTS)
    assert selected_outputs(proto.graph, names) == ["best", "places", "again"]
    assert comparable_tensors(proto.graph, names) == {
        "h": ("h",),
        "best": ("h",),
        "places": ("h",),
        "again": ("h",),
        "other": ("other",),
    }


def test_the_first_selection_counts_and_what_depends_on_values_in_its_length() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Sigmoid", ["h"], ["s"]),
        helper.make_node("Greater", ["s", "zero"], ["mask"]),
        helper.make_node("Reshape", ["mask", "all"], ["flat"]),
        helper.make_node("Compress", ["h", "flat"], ["kept"]),
        helper.make_node("TopK", ["kept", "k"], ["best", "places"]),
        helper.make_node("Mul", ["kept", "kept"], ["later"]),
    ]
    proto = network(nodes, {"x": ["N", 6]}, ["later", "best"], WEIGHTS)
    found = comparable_tensors(proto.graph, ["later", "best", "s"])
    assert found == {"later": ("h", "flat"), "best": ("h", "flat"), "s": ("s",)}


def test_a_selection_of_constants_is_none() -> None:
    nodes = [
        helper.make_node("NonZero", ["w"], ["where"]),
        helper.make_node("Cast", ["where"], ["real"], to=1),
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Gather", ["h", "all"], ["y"]),
    ]
    proto = network(nodes, {"x": ["N", 6]}, ["real", "y"], WEIGHTS)
    assert comparable_tensors(proto.graph, ["real", "y"]) == {"real": ("real",), "y": ("y",)}


def test_places_of_the_largest_are_measured_before_they_are_taken() -> None:
    """A classifier that ends in ArgMax, or in a choice between that and another index."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Softmax", ["h"], ["s"]),
        helper.make_node("ArgMax", ["s"], ["class"], axis=1),
        helper.make_node("ReduceMax", ["s"], ["sure"]),
        helper.make_node("Less", ["sure", "zero"], ["none"]),
        helper.make_node("Where", ["none", "all", "class"], ["y"]),
        helper.make_node("Cast", ["class"], ["real"], to=1),
    ]
    proto = network(nodes, {"x": ["N", 6]}, ["y", "real"], WEIGHTS)
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    assert comparable_tensors(proto.graph, ["y", "real"]) == {"y": ("s",), "real": ("real",)}
