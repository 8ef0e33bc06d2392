"""What only moves values reads behind the pair of its tensor for TensorRT 8, and enlarged skips have no pair there."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from quantkit.graph import Model
from quantkit.qdq.placement import Choices
from tests.support.qdq import (
    behind_pairs,
    every_scale,
    inserted,
    model_of,
    noise,
    on_onnxruntime,
    placed,
)

EIGHT = Choices(tensorrt=8)
NEWER = (Choices(), Choices(tensorrt=10))
POOL = "MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>"
LARGER = 'Resize<mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">'
SPPF = f"a = Conv(x, w) r = Relu(a) p = {POOL}(r) q = {POOL}(p) c = Concat<axis = 1>(r, p, q) y = Conv(c, t)"
BRANCH = "a = Conv(x, w) r = Relu(a) s = Conv(r, v) c = Concat<axis = 1>(r, s) y = Conv(c, d)"
ENLARGED = (
    f"a = Conv(x, w) r = Relu(a) l = {LARGER}(r, , two) b = {LARGER}(x, , two) k = Conv(b, v)"
    " c = Concat<axis = 1>(l, k) y = Conv(c, d) s = Concat<axis = 1>(r, x) z = Conv(s, e)"
)
PYRAMID = f"a = Conv(x, w) l = {LARGER}(a, , two) b = {LARGER}(x, , two) k = Conv(b, v) m = Add(k, l) y = Conv(m, u)"


def net(text: str) -> Model:
    outputs = "float[A, B, C, D] y" + (", float[E, F, G, H] z" if " z = " in text else "")
    shapes = {"w": (4, 4), "v": (4, 4), "u": (4, 4), "d": (4, 8), "e": (4, 8), "t": (4, 12)}
    named: dict[str, Any] = {name: noise(*shape, 1, 1) for name, shape in shapes.items()}
    named["two"] = np.array([1, 1, 2, 2], np.float32)
    used = {name: value for name, value in named.items() if re.search(rf"\b{name}\)", text)}
    return model_of(f"(float[1, 4, 8, 8] x) => ({outputs}) {{ {text} }}", **used)


def test_a_concat_reads_behind_the_pair_that_a_convolution_needs() -> None:
    assert behind_pairs(inserted(net(BRANCH), choices=EIGHT), "c") == [True, False]
    for newer in NEWER:
        assert behind_pairs(inserted(net(BRANCH), choices=newer), "c") == [False, False]


def test_a_pyramid_of_pools_reads_each_tensor_behind_one_pair() -> None:
    made = inserted(net(SPPF), choices=EIGHT)
    assert placed(made) == ["x", "r", "p", "c"]
    assert behind_pairs(made, "c") == [True, True, False]
    assert behind_pairs(made, "p") == behind_pairs(made, "q") == [True]
    assert placed(inserted(net(SPPF))) == ["x", "c"]


def test_a_resize_reads_behind_a_pair_where_others_join_its_tensor() -> None:
    made = inserted(net(ENLARGED), choices=EIGHT)
    assert behind_pairs(made, "l") == [True, False, False]
    assert behind_pairs(made, "s") == [True, True]
    assert behind_pairs(made, "c") == [False, False]


def test_a_resize_that_interpolates_reads_floats() -> None:
    linear = ENLARGED.replace(LARGER, 'Resize<mode = "linear", coordinate_transformation_mode = "asymmetric">')
    assert linear != ENLARGED
    assert behind_pairs(inserted(net(linear), choices=EIGHT), "l") == [False, False, False]
    assert not any(behind_pairs(inserted(net(ENLARGED)), "l"))


@pytest.mark.parametrize("text", [SPPF, BRANCH])
def test_moved_pairs_change_no_value(text: str) -> None:
    """A tensor that is rounded twice by one scale is rounded once."""
    model = net(text)
    x = np.random.default_rng(0).normal(size=(1, 4, 8, 8)).astype(np.float32)
    made = [on_onnxruntime(inserted(model, choices=choices).proto, x=x)[0] for choices in (EIGHT, Choices())]
    np.testing.assert_array_equal(*made)


@pytest.mark.parametrize(
    "text",
    [
        f"a = Conv(x, w) p = {POOL}(a) b = Conv(p, v) y = Add(b, p)",  # the stem of a residual network
        f"a = Conv(x, w) p = {POOL}(a) s = Softmax(a) c = Concat<axis = 1>(p, s) y = Conv(c, d)",  # one needs floats
        f"a = Conv(x, w) p = {POOL}(a) c = Concat<axis = 1>(a, p) y = Softmax(c)",  # nothing is INT8 behind it
    ],
)
def test_what_does_not_hand_int8_on_together_reads_floats(text: str) -> None:
    made, newer = (inserted(net(text), choices=choices) for choices in (EIGHT, Choices()))
    assert made.proto == newer.proto


def test_what_is_excluded_reads_floats() -> None:
    made = inserted(net(SPPF), choices=Choices(tensorrt=8, exclude=frozenset({"p"})))
    assert behind_pairs(made, "p") == [False]
    assert behind_pairs(made, "q") == [True]


def test_a_pool_with_a_scale_of_its_own_reads_floats() -> None:
    text = f"a = Conv(x, w) r = Relu(a) p = {POOL}(r) b = Conv(p, v) c = Concat<axis = 1>(r, b) y = Conv(c, d)"
    model = net(text)
    near = every_scale(model)
    assert behind_pairs(inserted(model, near, EIGHT), "p") == [True]
    assert behind_pairs(inserted(model, {**near, "p": near["c"] / 4}, EIGHT), "p") == [False]


def test_an_enlarged_skip_has_no_pair_for_tensorrt_8() -> None:
    made = inserted(net(PYRAMID), choices=EIGHT)
    assert behind_pairs(made, "m") == [False, False]
    assert behind_pairs(made, "l") == [False, False, False]
    for newer in NEWER:
        assert behind_pairs(inserted(net(PYRAMID), choices=newer), "m") == [False, True]
    wanted = Choices(tensorrt=8, include=frozenset({"m"}))
    assert behind_pairs(inserted(net(PYRAMID), choices=wanted), "m") == [False, True]


def test_a_sum_that_no_convolution_takes_in_keeps_both_pairs() -> None:
    text = PYRAMID.replace("m = Add(k, l)", "n = HardSwish(k) m = Add(n, l)")
    for choices in (EIGHT, Choices()):
        assert behind_pairs(inserted(net(text), choices=choices), "m") == [True, True]
