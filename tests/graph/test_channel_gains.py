"""Gains of channels, against what an impulse in each channel does to the outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.helper import make_node
from onnx.reference import ReferenceEvaluator

from quantkit.graph import Model
from quantkit.graph.channel_gains import channel_gains
from tests.support.networks import network

CHANNELS = 4
LAYERS = {
    "Conv": (make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1]), (3, 4, 3, 3), (1, 4, 7, 7), 1),
    "Conv in groups": (make_node("Conv", ["x", "w"], ["y"], group=2), (6, 2, 1, 1), (1, 4, 7, 7), 1),
    "depthwise": (make_node("Conv", ["x", "w"], ["y"], group=4, pads=[1, 1, 1, 1]), (4, 1, 3, 3), (1, 4, 7, 7), 1),
    "ConvTranspose": (make_node("ConvTranspose", ["x", "w"], ["y"]), (4, 3, 2, 2), (1, 4, 7, 7), 1),
    "Gemm": (make_node("Gemm", ["x", "w"], ["y"]), (4, 5), (1, 4), 1),
    "Gemm of a transposed weight": (make_node("Gemm", ["x", "w"], ["y"], transB=1), (5, 4), (1, 4), 1),
    "MatMul": (make_node("MatMul", ["x", "w"], ["y"]), (4, 5), (1, 3, 4), -1),
    "MatMul from the left": (make_node("MatMul", ["w", "x"], ["y"]), (5, 4), (1, 4, 3), -2),
}


def in_memory(proto: onnx.ModelProto) -> Model:
    return Model(Path("net.onnx"), proto, "")


def weight(shape: tuple[int, ...], seed: int = 3) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_gain_is_the_energy_of_the_answer_to_an_impulse(kind: str) -> None:
    node, shape, size, axis = LAYERS[kind]
    proto = network([node], {"x": list(size)}, ["y"], {"w": weight(shape)})
    evaluate, energies = ReferenceEvaluator(proto), []
    for channel in range(CHANNELS):
        impulse = np.zeros(size, np.float32)
        place: list[Any] = [n // 2 if n > CHANNELS else 0 for n in size]
        place[axis] = channel
        impulse[tuple(place)] = 1.0
        (answer,) = evaluate.run(None, {"x": impulse})
        energies.append(float(np.square(answer, dtype=np.float64).sum()))
    ((view, gains),) = channel_gains(in_memory(proto)).items()
    assert (view.tensor, view.axis) == ("x", axis)
    np.testing.assert_allclose(gains, np.array(energies) / np.mean(energies), rtol=1e-5)


def gains_of(nodes: list[Any], **weights: Any) -> Any:
    proto = network(nodes, {"x": [1, 4]}, [nodes[-1].output[0]], weights)
    return {view.tensor: gains for view, gains in channel_gains(in_memory(proto)).items()}


def test_every_reader_counts_the_same_and_those_without_weights_leave_channels_equal() -> None:
    strong, weak = make_node("MatMul", ["x", "a"], ["p"]), make_node("MatMul", ["x", "b"], ["q"])
    a, b = weight((4, 5)), weight((4, 5), 4)
    ga, gb = gains_of([strong], a=a)["x"], gains_of([weak], b=b)["x"]
    both = gains_of([strong, weak, make_node("Add", ["p", "q"], ["y"])], a=100.0 * a, b=b)["x"]
    np.testing.assert_allclose(both, (ga + gb) / 2, rtol=1e-5)
    c = weight((4, 4))
    beside = gains_of([make_node("MatMul", ["x", "c"], ["p"]), make_node("Add", ["p", "x"], ["y"])], c=c)["x"]
    np.testing.assert_allclose(
        beside, (gains_of([make_node("MatMul", ["x", "c"], ["y"])], c=c)["x"] + 1) / 2, rtol=1e-5
    )


@pytest.mark.parametrize("bad", [np.zeros((4, 5), np.float32), np.full((4, 5), np.nan, np.float32)])
def test_weights_that_say_nothing_have_no_gains(bad: Any) -> None:
    assert gains_of([make_node("MatMul", ["x", "w"], ["y"])], w=bad) == {}
