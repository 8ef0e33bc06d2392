"""The float network in the scale of a repaired one: factors are found, whatever rounding and one bad channel say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from quantkit.graph import Model
from quantkit.qdq.insert import insert_qdq
from quantkit.qdq.insertion import WeightForm
from quantkit.qdq.removal import remove_qdq
from quantkit.repairs.aligning import align_factors
from quantkit.repairs.editing import WeightEditor
from quantkit.repairs.group_search import find_group
from quantkit.repairs.linking import ChannelLayout, Network
from quantkit.repairs.scaling import group_channel_count, normalize_group, scale_group
from tests.support.qdq import model_of, noise

CHAIN = """(float[N, 3, 8, 8] x) => (float[N, 5] y) {
    a = Conv<pads = [1, 1, 1, 1]>(x, w, b) r = Relu(a)
    c = Conv<pads = [1, 1, 1, 1]>(r, v) d = Relu(c)
    p = GlobalAveragePool(d) f = Flatten(p) y = Gemm(f, g)
}"""
RESIDUAL = """(float[N, 3, 8, 8] x) => (float[N, 5] y) {
    a = Conv<pads = [1, 1, 1, 1]>(x, w, b) r = Relu(a)
    c = Conv<pads = [1, 1, 1, 1]>(r, v) e = Relu(c)
    d = Conv<pads = [1, 1, 1, 1]>(e, u) s = Add(d, r)
    p = GlobalAveragePool(s) f = Flatten(p) y = Gemm(f, g)
}"""
DEPTHWISE = """(float[N, 3, 8, 8] x) => (float[N, 5, 8, 8] y) {
    a = Conv<pads = [0, 0, 0, 0]>(x, e) r = Relu(a)
    c = Conv<group = 16, pads = [1, 1, 1, 1]>(r, q) d = Relu(c)
    y = Conv(d, o)
}"""
TRANSFORMER = """(float[N, 4, 16] x) => (float[N, 4, 8] y) {
    l = LayerNormalization(x, n, k) m = MatMul(l, t) h = Add(m, i) r = Relu(h) y = MatMul(r, j)
}"""


def nets() -> dict[str, Model]:
    return {
        "chain": model_of(CHAIN, w=noise(16, 3, 3, 3), b=noise(16), v=noise(16, 16, 3, 3), g=noise(16, 5)),
        "residual": model_of(
            RESIDUAL, w=noise(16, 3, 3, 3), b=noise(16), v=noise(16, 16, 3, 3), u=noise(16, 16, 3, 3), g=noise(16, 5)
        ),
        "depthwise": model_of(DEPTHWISE, e=noise(16, 3, 1, 1), q=noise(16, 1, 3, 3), o=noise(5, 16, 1, 1)),
        "transformer": model_of(
            TRANSFORMER, n=1 + noise(16) / 4, k=noise(16), t=noise(16, 32), i=noise(32), j=noise(32, 8)
        ),
    }


TENSORS = {"chain": ("r", "d"), "residual": ("r", "e"), "depthwise": ("r", "d"), "transformer": ("l", "r")}


def scaled(model: Model, tensors: tuple[str, ...], seed: int = 0) -> Model:
    """The same function, channels of the tensors' groups divided by random factors of 1/8 … 8."""
    for number, tensor in enumerate(tensors):
        network = Network(WeightEditor(model), {"LayerNormalization"})
        rank = len(network.shapes[tensor])
        group = find_group(network, tensor, ChannelLayout(1 if rank == 4 else rank - 1))
        assert not group.reason
        assert not normalize_group(group, network)
        factors = np.exp2(np.random.default_rng(seed + number).uniform(-3, 3, group_channel_count(group, network)))
        scale_group(network, group, factors)
        model = replace(model, proto=network.editor.finished())
    return model


def rounded(model: Model) -> Model:
    """Its weights as 8 bits leave them."""
    scales = {name: 0.1 for node in model.proto.graph.node for name in (*node.input, *node.output)}
    made = insert_qdq(model, scales, form=WeightForm.INT8)
    return replace(model, proto=remove_qdq(replace(model, proto=made.proto)).proto)


def weights(model: Model) -> dict[str, NDArray[Any]]:
    return {t.name: numpy_helper.to_array(t) for t in model.proto.graph.initializer}


def outputs(model: Model) -> NDArray[Any]:
    x = model.proto.graph.input[0]
    shape = [d.dim_value or 2 for d in x.type.tensor_type.shape.dim]
    return np.asarray(ReferenceEvaluator(model.proto).run(None, {x.name: noise(*shape)})[0])


@pytest.mark.parametrize("name", list(TENSORS))
def test_factors_are_found_in_rounded_weights(name: str) -> None:
    plain = nets()[name]
    repaired = scaled(plain, TENSORS[name])
    found = align_factors(plain, rounded(repaired))
    for weight, values in weights(repaired).items():
        np.testing.assert_allclose(weights(found)[weight], values, rtol=0.03, err_msg=weight)
    np.testing.assert_allclose(outputs(found), outputs(plain), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", list(TENSORS))
def test_without_a_repair_the_network_is_the_same_one(name: str) -> None:
    plain = nets()[name]
    assert align_factors(plain, rounded(plain)) is plain
    assert align_factors(plain, plain) is plain


@pytest.mark.parametrize("repaired", [False, True])
@pytest.mark.parametrize(("name", "weight"), [("chain", "w"), ("chain", "v"), ("residual", "u"), ("residual", "v")])
def test_a_channel_that_is_wrong_stays_an_error(name: str, weight: str, repaired: bool) -> None:
    plain = nets()[name]
    right = scaled(plain, TENSORS[name]) if repaired else plain
    wrong = replace(rounded(right), proto=onnx.ModelProto())
    wrong.proto.CopyFrom(rounded(right).proto)
    tensor = next(t for t in wrong.proto.graph.initializer if t.name == weight)
    values = numpy_helper.to_array(tensor).copy()
    values[3] *= 100
    tensor.CopyFrom(numpy_helper.from_array(values, weight))
    found = align_factors(plain, wrong)
    np.testing.assert_allclose(outputs(found), outputs(plain), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(weights(found)[weight], weights(right)[weight], rtol=0.03)


def test_a_network_with_nothing_in_common_tells_nothing() -> None:
    assert (
        align_factors(nets()["chain"], Model(Path("x"), nets()["transformer"].proto, "")).proto == nets()["chain"].proto
    )
