"""Networks between float and Q/DQ, and what is measured of them: every figure has an independent counterpart."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from quantkit.data import DataOptions, open_data
from quantkit.errors import ModelError
from quantkit.graph import Model
from quantkit.numerics import noise_decibels
from quantkit.output_noise import NoiseCandidate, NoiseMeter
from quantkit.preprocess import PRESETS
from quantkit.qdq.insert import insert_qdq
from quantkit.qdq.insertion import WeightForm
from quantkit.qdq.partial import PartialQuantization
from quantkit.qdq.placement import Choices
from quantkit.qdq.tensors_as_outputs import float_activations, with_shown_tensors
from quantkit.sensitivity.layer_ranking import LayerRanking, rank_layers, ranking_candidates
from tests.support.qdq import model_of, noise

TEXT = """(float[N, 3, 8, 8] x) => (float[N, 5] y) {
    a = Conv<pads = [1, 1, 1, 1]>(x, w, b) r = Relu(a)
    c = Conv<pads = [1, 1, 1, 1]>(r, v) s = Add(c, r)
    p = GlobalAveragePool(s) f = Flatten(p) m = MatMul(f, g) y = Add(m, h)
}"""
SCALES = {"x": 0.03, "a": 0.1, "r": 0.08, "c": 0.3, "s": 0.3, "p": 0.05, "f": 0.05, "m": 0.2, "y": 0.2}
LAYERS = ["a", "c", "s", "p", "m"]


def net() -> Model:
    return model_of(TEXT, 19, w=noise(4, 3, 3, 3), b=noise(4), v=noise(4, 4, 3, 3), g=noise(4, 5), h=noise(5))


def quantized(form: WeightForm = WeightForm.FLOAT, exclude: frozenset[str] = frozenset()) -> Model:
    made = insert_qdq(net(), SCALES, Choices(exclude=exclude), form)
    return Model(Path("net.int8.onnx"), made.proto, "")


def images(count: int = 6) -> NDArray[Any]:
    return np.random.default_rng(3).normal(size=(count, 3, 8, 8)).astype(np.float32)


def run(model: Model) -> NDArray[Any]:
    """What ONNX's own evaluator computes."""
    return np.asarray(ReferenceEvaluator(model.proto).run(["y"], {"x": images()})[0])


def measuring(reference: Model, threads: int | None = 1) -> NoiseMeter:
    feed, _ = open_data([{"x": images()[:4]}, {"x": images()[4:]}], reference.inputs, PRESETS["raw"], DataOptions())
    return NoiseMeter(reference, feed, threads)


def test_a_layer_is_what_reads_behind_a_pair() -> None:
    layers = PartialQuantization(quantized()).layers
    assert [layer.node for layer in layers] == LAYERS
    assert [layer.operator for layer in layers] == ["Conv", "Conv", "Add", "GlobalAveragePool", "MatMul"]
    assert [layer.tensors for layer in layers] == [("x",), ("r",), ("r",), ("s",), ("f",)]
    assert [layer.parameters for layer in layers] == [4 * 27 + 4, 4 * 36, 0, 0, 20]


@pytest.mark.parametrize("form", [WeightForm.FLOAT, WeightForm.INT8])
def test_all_layers_are_the_quantized_network_and_none_the_float_one(form: WeightForm) -> None:
    variants = PartialQuantization(quantized(form), net())
    np.testing.assert_array_equal(run(variants.with_layers(LAYERS)), run(quantized(form)))
    np.testing.assert_array_equal(run(variants.with_layers(())), run(net()))
    onnx.checker.check_model(variants.with_layers(LAYERS[:2]).proto, full_check=True)


@settings(max_examples=16)
@given(chosen=st.sets(st.sampled_from(LAYERS)), form=st.sampled_from([WeightForm.FLOAT, WeightForm.INT8]))
def test_a_variant_is_what_exclusion_makes(chosen: set[str], form: WeightForm) -> None:
    """The same layers, excluded before Q/DQ goes in: an Add and a pool get pairs there only with those around them."""
    chosen -= {"s", "p"}
    if not chosen:
        return
    kept = quantized(exclude=frozenset(set(LAYERS) - chosen))
    np.testing.assert_array_equal(run(PartialQuantization(quantized(form), net()).with_layers(chosen)), run(kept))


def test_a_layer_alone_against_arithmetic_by_hand() -> None:
    """Only MatMul `m`: its input and its weights through 8 bits, written out."""
    exact = ReferenceEvaluator(showing_all(net()))
    names = [value.name for value in showing_all(net()).graph.output]
    values = dict(zip(names, exact.run(names, {"x": images()}), strict=True))
    f = np.clip(np.rint(values["f"] / np.float32(0.05)), -128, 127) * np.float32(0.05)
    g = noise(4, 5)
    scale = np.abs(g).max(axis=0) / np.float32(127)
    expected = f.astype(np.float32) @ (np.rint(g / scale) * scale).astype(np.float32) + noise(5)
    variants = PartialQuantization(quantized())
    np.testing.assert_allclose(run(variants.with_layers(["m"])), expected, rtol=1e-5, atol=1e-5)
    found = measuring(net()).noise(
        {"m": NoiseCandidate(lambda: variants.with_layers(["m"], "m"), variants.output_pair("m"))}
    )["m"]
    y = values["y"].astype(np.float64)
    assert found.db == pytest.approx(10 * np.log10((y**2).sum() / ((y - expected) ** 2).sum()), abs=1e-3)
    m = values["m"].astype(np.float64)
    own = expected - noise(5)
    assert found.local_db == pytest.approx(10 * np.log10((m**2).sum() / ((m - own) ** 2).sum()), abs=1e-3)


def showing_all(model: Model) -> onnx.ModelProto:
    return with_shown_tensors(model, float_activations(model))


def test_leaving_all_out_one_by_one_ends_without_noise() -> None:
    variants, meter = PartialQuantization(quantized()), measuring(net())
    candidates = {
        str(n): NoiseCandidate(lambda n=n: variants.with_layers(LAYERS[n:]))  # type: ignore[misc]
        for n in range(len(LAYERS) + 1)
    }
    found = meter.noise(candidates)
    assert found[str(len(LAYERS))].db == math.inf
    assert all(0 < found[str(n)].outputs < 1 for n in range(len(LAYERS)))
    assert meter.samples == 6


def test_threads_and_batches_change_nothing() -> None:
    variants = PartialQuantization(quantized())
    several = {name: NoiseCandidate(lambda name=name: variants.with_layers([name])) for name in LAYERS}  # type: ignore[misc]
    one = measuring(net(), 1).noise(several)
    assert measuring(net(), 3).noise(several) == one


def ranked(left: dict[str, str]) -> LayerRanking:
    """The ranking of the network's layers. left: node → why it stays float."""
    variants = PartialQuantization(quantized())
    return rank_layers(measuring(net()).noise(ranking_candidates(variants)), variants, {}, left)


def test_a_blocks_end_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ranked({})
    monkeypatch.setattr("quantkit.output_noise.reference_blocks.BLOCK", 1)
    assert ranked({}) == whole


def test_ranks_by_noise_alone_and_tells_what_stays_float() -> None:
    found = ranked({"q": "excluded"})
    alone = [layer.alone_db for layer in found.layers]
    assert alone == sorted(alone)
    assert found.layers[-1].kept == "excluded"
    assert sum(layer.share for layer in found.layers) == pytest.approx(1.0)
    assert all(x.gain_db == pytest.approx(x.without_db - found.all_db) for x in found.layers)


def test_a_changed_bias_goes_with_its_layer() -> None:
    """That of a Conv, and the Add behind a MatMul: as bias correction changes them."""
    made = quantized(WeightForm.INT8)
    for tensor in made.proto.graph.initializer:
        if tensor.name in ("b", "h"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + 1, tensor.name))
    variants = PartialQuantization(made, net())
    np.testing.assert_array_equal(run(variants.with_layers(())), run(net()))
    np.testing.assert_array_equal(run(variants.with_layers(LAYERS)), run(made))
    assert np.abs(run(variants.with_layers(["m"])) - run(net())).mean() > 0.9
    assert variants.output_pair("m") == ("y", "y|counterpart")


def test_a_pair_before_the_end_goes_with_what_makes_it() -> None:
    made = quantized()
    graph = made.proto.graph
    graph.node[-1].output[0] = "raw"
    graph.initializer.extend(
        [numpy_helper.from_array(np.float32(0.5), "ys"), numpy_helper.from_array(np.int8(0), "yz")]
    )
    graph.node.extend(
        [
            helper.make_node("QuantizeLinear", ["raw", "ys", "yz"], ["yq"], "q"),
            helper.make_node("DequantizeLinear", ["yq", "ys", "yz"], ["y"], "dq"),
        ]
    )
    variants = PartialQuantization(made)
    assert variants.layers[-1].node == "raw"
    np.testing.assert_array_equal(run(variants.with_layers(())), run(net()))
    rounded = run(variants.with_layers(["raw"]))
    np.testing.assert_array_equal(rounded, np.rint(run(net()) / np.float32(0.5)) * np.float32(0.5))
    assert variants.output_pair("raw") == ("y", "raw|counterpart")


def test_what_cannot_be_taken_out_stays_and_is_told() -> None:
    made = quantized()
    node = next(n for n in made.proto.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == "f")
    made.proto.graph.output.append(helper.make_tensor_value_info(node.output[0], onnx.TensorProto.INT8, None))
    variants = PartialQuantization(made)
    assert "is an output of the network" in variants.left[node.name]
    assert "m" not in [layer.node for layer in variants.layers if layer.tensors]


def test_a_float_network_has_no_variants() -> None:
    with pytest.raises(ModelError, match="no operator that reads behind a Q/DQ pair"):
        PartialQuantization(net())


def test_outputs_that_are_no_floats_are_refused() -> None:
    model = model_of("(float[N, 5] x) => (int64[N, 1] y) { y = ArgMax(x) }")
    with pytest.raises(ModelError, match="no float output"):
        measuring(model)


def test_a_network_that_yields_nan_is_infinite_noise() -> None:
    model = net()
    broken = replace(model, proto=onnx.ModelProto())
    broken.proto.CopyFrom(model.proto)
    next(t for t in broken.proto.graph.initializer if t.name == "h").CopyFrom(
        numpy_helper.from_array(np.full(5, np.nan, np.float32), "h")
    )
    found = measuring(model).noise({"": NoiseCandidate(lambda: broken)})[""]
    assert (found.outputs, found.db) == (math.inf, -math.inf)
    assert noise_decibels(0.1) == pytest.approx(10.0)


def test_ctrl_c_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(done: int, of: int | None) -> None:
        raise KeyboardInterrupt

    variants = PartialQuantization(quantized())
    with pytest.raises(KeyboardInterrupt):
        measuring(net(), 2).noise({name: NoiseCandidate(lambda: variants.with_layers(())) for name in "abcdefgh"}, told)


def test_an_error_of_a_candidate_is_raised() -> None:
    def fails() -> Model:
        raise ModelError("no", remedy="none")

    with pytest.raises(ModelError, match="no"):
        measuring(net(), 2).noise({"a": NoiseCandidate(fails)})


def test_layers_of_one_name_are_told_apart() -> None:
    made = quantized()
    for node in made.proto.graph.node:
        if node.op_type in ("Conv", "MatMul"):
            node.name = "same"
    variants = PartialQuantization(made)
    assert [layer.node for layer in variants.layers] == ["same", "c", "s", "p", "m"]
    np.testing.assert_array_equal(run(variants.with_layers(["same", "c", "s", "p", "m"])), run(quantized()))


def test_weights_that_are_listed_as_inputs_are_no_inputs_of_a_variant() -> None:
    made = quantized()
    made.proto.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in made.proto.graph.initializer
    )
    assert [i.name for i in PartialQuantization(made).with_layers(()).inputs] == ["x"]
    assert {v.name for v in PartialQuantization(made).with_layers(()).proto.graph.input} == {
        "x",
        "w",
        "b",
        "v",
        "g",
        "h",
    }
