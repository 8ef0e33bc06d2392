"""Detection heads: found in small detectors of every kind, and in nothing that detects nothing."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantkit.graph import Model
from quantkit.graph.index import index_graph
from quantkit.qdq.patterns.detection_heads import GRID, SPREAD, find_detection_heads
from quantkit.qdq.placement import Choices
from tests.support.qdq import every_scale, inserted, model_of, noise, placed, reasons

WEIGHTS: dict[str, Any] = {
    "w": noise(8, 8, 3, 3), "v": noise(8, 8, 1, 1), "down": noise(8, 8, 2, 2), "up": noise(8, 8, 2, 2),
    "d": noise(8, 16, 1, 1), "wide": noise(8, 24, 1, 1),
    "box": noise(4, 8, 1, 1), "cls": noise(3, 8, 1, 1), "dist": noise(16, 8, 1, 1), "three": noise(3, 16, 1, 1),
    "dfl": np.arange(4, dtype=np.float32).reshape(1, 4, 1, 1),
    "as_dfl": np.array([1, 4, 4, 64]), "as_boxes": np.array([1, 4, 64]), "as_cls": np.array([1, 3, 64]),
    "as_4": np.array([1, -1, 4]), "as_3": np.array([1, -1, 3]), "flat": np.array([1, -1]),
    "as_all": np.array([1, 19, -1]), "parts": np.array([16, 3]), "as_sides": np.array([1, 4, 4, 80]),
    "as_4s": np.array([1, 4, 80]),
    "grid": noise(1, 2, 64), "grid_64": noise(64, 4), "stride": np.full((1, 64), 8, np.float32), "two": np.float32(2),
    "halves": np.array([2, 2]), "halves_": np.array([2, 2]),
    "anchors": noise(1, 80, 4), "variance": np.full((1, 1, 4), 0.1, np.float32),
    "k": np.array([5]), "most": np.array([10]),
    "iou": np.array([0.5], np.float32), "score": np.array([0.1], np.float32),
    "fc": noise(8, 10), "bias": noise(10), "sizes": np.array([1, 1, 2, 2], np.float32), "row": noise(1, 200),
    "pair": noise(16, 10),
}  # fmt: skip
PAD = "<pads = [1, 1, 1, 1]>"
BODY = f"a0 = Conv{PAD}(x, w) a = Relu(a0) "
LEVELS = BODY + "b0 = Conv<strides = [2, 2]>(a, down) b = Relu(b0) "
IMAGE = "(float[1, 8, 8, 8] x) => "


def net(text: str, outputs: str = "(float[A, B, C] y)", opset: int = 17) -> Model:
    """A network; of the weights those that it names."""
    words = set(re.findall(r"\w+", text))
    weights = {name: value for name, value in WEIGHTS.items() if name in words}
    return model_of(f"{IMAGE}{outputs} {{ {text} }}", opset, **weights)


def heads(model: Model, amax: dict[str, float] | None = None) -> dict[str, str]:
    """Names of the operators of a head, with the reason."""
    wires = index_graph(model.proto)
    return {
        wires.name(n): why
        for n, why in find_detection_heads(wires, every_scale(model) if amax is None else amax).items()
    }


def flat(source: str, new: str, shape: str) -> str:
    """A map as rows of values: one for each position."""
    return f"{new}_t = Transpose<perm = [0, 2, 3, 1]>({source}) {new} = Reshape({new}_t, {shape}) "


# SSD: levels joined, boxes decoded with anchors ---------------------------------------------------------------------

SSD = (
    LEVELS
    + "la = Conv(a, box) lb = Conv(b, box) ca = Conv(a, cls) cb = Conv(b, cls) "
    + flat("la", "fa", "as_4") + flat("lb", "fb", "as_4") + flat("ca", "ga", "as_3") + flat("cb", "gb", "as_3")
    + "l = Concat<axis = 1>(fa, fb) g = Concat<axis = 1>(ga, gb) s = Softmax<axis = 2>(g) "
)  # fmt: skip
PREDICTORS = {"la", "lb", "ca", "cb"}


def test_ssd_is_told_by_its_anchors() -> None:
    """Scores and boxes are outputs of their own; only boxes meet anchors, and both heads stay float."""
    model = net(f"{SSD} e = Mul(l, variance) y = Add(e, anchors)", "(float[A, B, C] y, float[D, E, F] s)")
    assert heads(model) == dict.fromkeys(PREDICTORS, "detected from arithmetic with a grid in Add y")
    made = inserted(model)
    assert set(made.left) == PREDICTORS
    assert placed(made) == ["x", "a"], "the rest of it is quantized"


def test_a_head_behind_silu_is_quantized_for_tensorrt_8() -> None:
    """TensorRT 8 fuses a convolution with SiLU only if it writes INT8, for which its readers have to be INT8."""
    text = SSD.replace("a = Relu(a0)", "as = Sigmoid(a0) a = Mul(a0, as)")
    model = net(f"{text} e = Mul(l, variance) y = Add(e, anchors)", "(float[A, B, C] y, float[D, E, F] s)")
    assert set(reasons(inserted(model, choices=Choices(tensorrt=10)))) == PREDICTORS
    assert set(reasons(inserted(model, choices=Choices(tensorrt=8)))) == {"lb", "cb"}, "a Relu makes what they read"
    left = Choices(tensorrt=8, exclude=frozenset(["la"]))
    assert reasons(inserted(model, choices=left))["la"] == "excluded"


def test_ssd_whose_boxes_are_decoded_elsewhere_is_not_told() -> None:
    assert heads(net(f"{SSD} y = Identity(l)", "(float[A, B, C] y, float[D, E, F] s)")) == {}


@pytest.mark.parametrize("selecting", ["NonMaxSuppression", "TopK"])
def test_a_selection_tells_a_head(selecting: str) -> None:
    text = f"{SSD} st = Transpose<perm = [0, 2, 1]>(s) "
    if selecting == "TopK":
        text += "m = ReduceMax<axes = [2], keepdims = 0>(s) o, n = TopK(m, k) y = Mul(o, two)"
        model = net(text, "(float[A, B] y, float[D, E, F] l)")
    else:
        model = net(text + "n = NonMaxSuppression(l, st, most, iou, score) y = Cast<to = 1>(n)", "(float[A, B] y)")
    found = heads(model)
    assert set(found) == PREDICTORS
    assert set(found.values()) == {f"detected from {selecting}"}


PLAIN = (
    BODY + "p = Conv(a, box) q = Conv(a, cls) l = Reshape(p, as_boxes) s0 = Reshape(q, as_cls) s = Sigmoid(s0)"
    " lt = Transpose<perm = [0, 2, 1]>(l) "
)


@pytest.mark.parametrize("offset", ["", "o = Add(grid_64, lt) "])
def test_boxes_and_scores_that_meet_in_the_selection_alone_are_a_head(offset: str) -> None:
    boxes = "o" if offset else "lt"
    model = net(
        f"{PLAIN}{offset}n = NonMaxSuppression({boxes}, s, most, iou, score) y = Cast<to = 1>(n)", "(float[A, B] y)"
    )
    found = heads(model)
    assert len(found) == 2
    assert set(found.values()) == {"detected from NonMaxSuppression"}


def test_boxes_that_are_gathered_by_the_order_of_scores_are_a_head() -> None:
    text = f"{PLAIN}m = ReduceMax<axes = [1], keepdims = 0>(s) v, i = TopK(m, k) y = Gather<axis = 1>(lt, i)"
    assert len(heads(net(text, "(float[A, B, C, D] y)"))) == 2


def test_the_best_class_of_a_classifier_is_no_head() -> None:
    text = BODY + "p = Conv(a, v) q = Conv(a, v) r = Add(p, q) f = Reshape(r, flat) y, i = TopK(f, k)"
    assert heads(net(text, "(float[A, B] y)")) == {}


def test_a_plugin_for_selection_tells_a_head() -> None:
    model = net(f"{SSD} y = Identity(s) z = EfficientNMS_TRT(l, y)", "(float[A, B, C] z)")
    model.proto.graph.node[-1].domain = "TRT"
    model.proto.opset_import.add(domain="TRT", version=1)
    assert set(heads(model)) == PREDICTORS


# YOLO: boxes and scores joined ---------------------------------------------------------------------------------------

DFL = (
    BODY + "p = Conv(a, dist) q = Conv(a, cls) p4 = Reshape(p, as_dfl) pt = Transpose<perm = [0, 2, 1, 3]>(p4)"
    " ps = Softmax<axis = 1>(pt) e = Conv(ps, dfl) e4 = Reshape(e, as_boxes) q3 = Reshape(q, as_cls) "
)
DECODE = (
    "lt, rb = Split<axis = 1>(e4, halves) p1 = Sub(grid, lt) p2 = Add(grid, rb) m0 = Add(p1, p2) m = Div(m0, two)"
    " sz = Sub(p2, p1) bx = Concat<axis = 1>(m, sz) o = Mul(bx, stride) s = Sigmoid(q3) y = Concat<axis = 1>(o, s)"
)


def test_yolov8_with_distributions_over_distances() -> None:
    model = net(DFL + DECODE)
    assert set(heads(model)) == {"p", "q", "e"}
    made = inserted(model)
    assert set(made.left) == {"p", "q", "e"}
    assert placed(made) == ["x"]


def test_yolov8_of_several_levels() -> None:
    """Boxes and scores of a level are joined, then the levels, and then they are taken apart again."""
    levels = "".join(
        f"p{k} = Conv({k}, dist) q{k} = Conv({k}, cls) j{k} = Concat<axis = 1>(p{k}, q{k})"
        f" r{k} = Reshape(j{k}, as_all) "
        for k in "ab"
    )
    model = net(
        f"{LEVELS}{levels} j = Concat<axis = 2>(ra, rb) p, q = Split<axis = 1>(j, parts) p4 = Reshape(p, as_sides)"
        " pt = Transpose<perm = [0, 2, 1, 3]>(p4) ps = Softmax<axis = 1>(pt) e = Conv(ps, dfl) e4 = Reshape(e, as_4s)"
        " s = Sigmoid(q) y = Concat<axis = 1>(e4, s)"
    )
    made = inserted(model)
    assert set(made.left) == {"pa", "qa", "pb", "qb", "e"}
    assert placed(made) == ["x", "a"]


def test_the_sum_of_a_softmax_alone_tells_a_head() -> None:
    found = heads(net(f"{DFL} y = Concat<axis = 1>(e4, q3)"))
    assert found == dict.fromkeys(["p", "q", "e"], "detected from a Softmax over distances")


def test_a_head_can_be_included_and_the_policy_does_not_matter() -> None:
    model = net(DFL + DECODE)
    made = inserted(model, choices=Choices(include=frozenset({"p", "q"})))
    assert (placed(made), set(made.left)) == (["x", "a"], {"e"})


YOLO5 = (
    BODY + "p = Conv(a, box) q = Conv(a, cls) p3 = Reshape(p, as_boxes) q3 = Reshape(q, as_cls) s = Sigmoid(p3)"
    " xy, wh = Split<axis = 1>(s, halves) b = Add(xy, grid) c = Mul(b, stride) u = Mul(wh, two) t = Sigmoid(q3)"
    " y = Concat<axis = 1>(c, u, t)"
)


def test_yolov5_is_told_by_its_grid() -> None:
    assert set(heads(net(YOLO5))) == {"p", "q"}


JOINED = (
    BODY
    + "p = Conv(a, box) q = Conv(a, cls) p3 = Reshape(p, as_boxes) q3 = Reshape(q, as_cls) y = Concat<axis = 1>(p3, q3)"
)


@given(st.floats(1e-3, 1e3), st.floats(1.0, 64.0))
def test_ranges_tell_a_head_where_they_are_far_apart(low: float, spread: float) -> None:
    found = heads(net(JOINED), {"p3": low * spread, "q3": low})
    assert set(found) == ({"p", "q"} if low * spread > SPREAD * low else set())


def test_what_is_not_known_of_ranges_tells_nothing() -> None:
    for amax in ({}, {"p3": 100.0}, {"p3": 100.0, "q3": 0.0}, {"x": 1e-9, "p3": 1.0, "q3": 1.0}):
        assert heads(net(JOINED), amax) == {}


def test_ranges_tell_a_head_by_the_table_that_is_inserted() -> None:
    made = inserted(net(JOINED), {"x": 0.1, "a": 0.1, "p3": 5.0, "q3": 0.01})
    assert (placed(made), set(made.left)) == (["x"], {"p", "q"})
    assert "(detected from Concat y whose inputs have ranges 1.27 and 635)" in reasons(made)["p"]
    assert placed(inserted(net(JOINED))) == ["x", "a"]


@pytest.mark.parametrize("score", ["Sigmoid", "HardSigmoid", "Softmax<axis = 1>"])
@pytest.mark.parametrize("ranges", [{}, {"p3": 1.0, "s": 1.0}, {"p3": 1e-3, "s": 1.0}])
def test_scores_beside_other_values_are_a_head_whatever_the_ranges(score: str, ranges: dict[str, float]) -> None:
    """YOLOX without its decoding: the calibration method must not decide what is a head."""
    text = (
        f"p = Conv(a, box) q = Conv(a, cls) t = {score}(q) s = Reshape(t, as_cls) p3 = Reshape(p, as_boxes)"
        " y = Concat<axis = 1>(p3, s)"
    )
    assert set(heads(net(BODY + text), ranges)) == {"p", "q"}


# What is no head ----------------------------------------------------------------------------------------------------

GAP = "z = GlobalAveragePool({0}) zf = Flatten(z) y = Gemm(zf, {1})"
NONE = {
    "inception": f"{BODY} b = Conv(a, v) c = Conv{PAD}(a, w) i = Concat<axis = 1>(b, c) r = Relu(i) "
    + GAP.format("r", "pair"),
    "squeezenet": f"{BODY} b = Conv(a, v) c = Conv{PAD}(a, w) i = Concat<axis = 1>(b, c) r = Conv(i, three)"
    " z = GlobalAveragePool(r) f = Flatten(z) y = Softmax(f)",
    "densenet": f"{BODY} b = Conv{PAD}(a, w) c = Concat<axis = 1>(a, b) e = Conv(c, d) f = Concat<axis = 1>(c, e)"
    " g = Conv(f, wide) " + GAP.format("g", "fc"),
    "classifier with TopK": f"{BODY} z = GlobalAveragePool(a) zf = Flatten(z) g = Gemm(zf, fc) s = Softmax(g)"
    " y, n = TopK(s, k)",
    "inception with TopK": f"{BODY} b = Conv(a, v) c = Conv{PAD}(a, w) i = Concat<axis = 1>(b, c)"
    " z = GlobalAveragePool(i) zf = Flatten(z) g = Gemm(zf, pair) y, n = TopK(g, k)",
    "classifier with a bias of its own": f"{BODY} z = GlobalAveragePool(a) zf = Flatten(z) g = MatMul(zf, fc)"
    " y = Add(g, bias)",
}  # fmt: skip
MAPS = {
    "unet": f"{BODY} b = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(a) c0 = Conv{PAD}(b, w) c = Relu(c0)"
    " e = ConvTranspose<strides = [2, 2]>(c, up) f = Concat<axis = 1>(e, a) y = Conv(f, three)",
    "unet with probabilities": f"{BODY} b = Conv<strides = [2, 2]>(a, down) e = ConvTranspose<strides = [2, 2]>(b, up)"
    " f = Concat<axis = 1>(e, a) g = Conv(f, three) y = Softmax<axis = 1>(g)",
    "segmentation": f"{LEVELS} c = Conv(b, cls) y = Resize(c, , sizes)",
    "pyramid pooling": f"{BODY} b = AveragePool<kernel_shape = [8, 8]>(a) c = Conv(b, v) e = Expand(c, shape)"
    " f = Concat<axis = 1>(a, e) y = Conv(f, three)",
    "super-resolution": f"{BODY} b = Conv(a, v) y = DepthToSpace<blocksize = 2>(b)",
    "two maps of scores side by side": f"{BODY} b = Conv(a, box) c = Conv(a, cls) s = Sigmoid(b) t = Sigmoid(c)"
    " y = Concat<axis = 1>(s, t)",
    "scores beside the image": f"{BODY} b = Conv(a, cls) c = Sigmoid(b) y = Concat<axis = 1>(c, x)",
    "two maps side by side": f"{BODY} b = Conv(a, box) c = Conv(a, cls) y = Concat<axis = 1>(b, c)",
}
WEIGHTS["shape"] = np.array([1, 8, 8, 8])


@pytest.mark.parametrize("kind", [*NONE, *MAPS])
def test_networks_that_detect_nothing_have_no_head(kind: str) -> None:
    model = net({**NONE, **MAPS}[kind], "(float[A, B] y)" if kind in NONE else "(float[A, B, C, D] y)")
    assert heads(model) == {}
    assert not any("detection" in why for why in reasons(inserted(model)).values())


def test_ranges_inside_a_network_tell_nothing() -> None:
    """Only what lies between the last weighted operators and an output."""
    model = net(MAPS["unet"], "(float[A, B, C, D] y)")
    assert heads(model, {"e": 100.0, "a": 0.01}) == {}


@pytest.mark.parametrize("name", ["row", "bias", "two"])
def test_a_vector_is_no_grid(name: str) -> None:
    """However long it is: something for each channel, or one number."""
    assert WEIGHTS["row"].size > GRID
    shape = {"row": "200", "bias": "10", "two": "N"}[name]
    text = f"p = MatMul(x, m1) q = MatMul(x, m2) j = Concat<axis = 0>(p, q) y = Add(j, {name})"
    size = 200 if name == "row" else 10
    weights = {"m1": noise(8, size), "m2": noise(8, size), name: WEIGHTS[name]}
    model = model_of(f"(float[4, 8] x) => (float[8, {shape}] y) {{ {text} }}", **weights)
    assert heads(model) == {}


def test_a_grid_that_is_computed_tells_a_head() -> None:
    """By other operators from constants, as exporters leave it."""
    text = YOLO5.replace("b = Add(xy, grid)", "gc = Mul(grid, two) b = Add(xy, gc)").replace(
        "Mul(b, stride)", "Mul(b, two)"
    )
    assert set(heads(net(text))) == {"p", "q"}
