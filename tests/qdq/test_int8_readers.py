"""What reads kernels that write INT8 alone: in INT8 for TensorRT 8, as a whole or not at all; float for newer ones."""

from __future__ import annotations

import re

import pytest

from quantkit.graph import Model
from quantkit.qdq.float_reason import FloatCause
from quantkit.qdq.placement import Choices
from tests.support.qdq import behind_pairs, every_scale, inserted, model_of, noise, placed, reasons

EIGHT = Choices(tensorrt=8)
GATE = FloatCause.GATE.value
DEPTHWISE = f"{FloatCause.FLOAT_OUTPUT.value} (depthwise)"
HEAD = "(float[N, 8, 6, 6] x) => (float[N, 8, 6, 6] y{})"
ACTIVATIONS = {
    "none": ("", "b"),
    "Relu": ("c = Relu(b)", "c"),
    "SiLU": ("s = Sigmoid(b) c = Mul(b, s)", "c"),
    "HardSwish": ("c = HardSwish(b)", "c"),
    "HardSwish, written out": ("s = HardSigmoid(b) c = Mul(s, b)", "c"),
}
"""What follows the depthwise convolution b, and its name."""
PAIRED = {"HardSwish": {"c"}, "HardSwish, written out": {"s", "c"}}
GATES = {
    "Conv": "p = GlobalAveragePool({0}) h = Conv(p, w1) i = Relu(h) k = Conv(i, w2) g = Sigmoid(k) m = Mul({0}, g)",
    "gate first": "p = GlobalAveragePool({0}) h = Conv(p, w1) i = Relu(h) k = Conv(i, w2) g = Sigmoid(k)"
    " m = Mul(g, {0})",
    "ReduceMean": "p = ReduceMean<axes = [2, 3]>({0}) h = Conv(p, w1) j = Sigmoid(h) i = Mul(h, j) k = Conv(i, w2)"
    " g = HardSigmoid(k) m = Mul({0}, g)",
}
MAXIMUM = "p = GlobalMaxPool({0}) h = Conv(p, w1) i = Relu(h) k = Conv(i, w2) g = Sigmoid(k) m = Mul({0}, g)"
SHAPES = {
    "w": (8, 8, 1, 1),
    "dense": (8, 8, 3, 3),
    "deep": (8, 1, 3, 3),
    "wide": (8, 4, 3, 3),
    "w1": (2, 8, 1, 1),
    "w2": (8, 2, 1, 1),
}


def net(text: str, further: str = "", middle: str = "group = 8", weights: str = "deep", before: str = "") -> Model:
    """A network of a 1×1 convolution, a depthwise one, and what follows. further: outputs besides y; before: what
    makes a of u, if the first convolution does not."""
    first = "u" if before else "a"
    whole = f"{first} = Conv(x, w){before} b = Conv<{middle}, pads = [1, 1, 1, 1]>(a, {weights}) {text}"
    used = set(re.findall(r"\w+", whole))
    given = {name: noise(*shape) for name, shape in SHAPES.items() if name in used}
    return model_of(f"{HEAD.format(further)} {{ {whole} }}", 17, **given)


def block(activation: str, gate: str) -> Model:
    """A block as in MobileNetV3: an activation, a gate, a 1×1 convolution."""
    text, name = ACTIVATIONS[activation]
    return net(f"{text} {GATES[gate].format(name)} y = Conv(m, w)")


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_gate_behind_a_depthwise_convolution_is_int8_for_tensorrt_8(activation: str, gate: str) -> None:
    made = inserted(block(activation, gate), choices=EIGHT)
    assert reasons(made) == {}
    tensor = ACTIVATIONS[activation][1]
    assert set(placed(made)) == {"x", "a", tensor, "p", "i", "g", "m"} | ({"b"} if activation in PAIRED else set())
    assert behind_pairs(made, "m") == [True, True]
    assert behind_pairs(made, "p")[0]


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("version", [None, 10])
def test_newer_versions_have_kernels_that_write_float(activation: str, gate: str, version: int | None) -> None:
    made = inserted(block(activation, gate), choices=Choices(tensorrt=version))
    assert reasons(made) == {"h": GATE, "k": GATE}
    assert set(placed(made)) == {"x", "a", "m"}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_activation_has_a_pair_if_its_convolution_then_writes_int8(activation: str) -> None:
    text, name = ACTIVATIONS[activation]
    made = inserted(net(f"{text} y = Conv({name}, w)"), choices=EIGHT)
    assert reasons(made) == {}
    assert set(placed(made)) == {"x", "a", name} | ({"b"} if activation in PAIRED else set())
    for node in PAIRED.get(activation, set()):
        assert True in behind_pairs(made, node)


WITHOUT = {
    "the convolution is excluded": ("b", "", {"b": "excluded", "h": GATE, "k": GATE}),
    "the product is": ("m", "", {"b": DEPTHWISE, "h": GATE, "k": GATE}),
    "the pool is": ("p", "", {"b": DEPTHWISE, "h": GATE, "k": GATE}),
    "the reader of the product is": ("y", "", {"b": DEPTHWISE, "h": GATE, "k": GATE, "y": "excluded"}),
    "the product is also an output": ("", ", float[N, 8, 6, 6] m", {"b": DEPTHWISE, "h": GATE, "k": GATE}),
    "what it multiplies is also an output": ("", ", float[N, 8, 6, 6] c", {"b": DEPTHWISE, "h": GATE, "k": GATE}),
}  # fmt: skip


@pytest.mark.parametrize("activation", ["Relu", "SiLU", "HardSwish", "HardSwish, written out"])
@pytest.mark.parametrize("case", WITHOUT)
def test_where_one_part_stays_float_all_do(activation: str, case: str) -> None:
    excluded, further, expected = WITHOUT[case]
    text, name = ACTIVATIONS[activation]
    model = net(f"{text} {GATES['Conv'].format(name)} y = Conv(m, w)", further)
    made = inserted(model, choices=Choices(tensorrt=8, exclude=frozenset(filter(None, [excluded]))))
    assert reasons(made) == expected
    assert not behind_pairs(made, "m").count(True)
    assert not {"b", "p", "i", "g"} & set(placed(made))


@pytest.mark.parametrize("activation", ["Relu", "SiLU", "HardSwish", "HardSwish, written out"])
@pytest.mark.parametrize("case", WITHOUT)
def test_behind_a_silu_the_gate_stays_float_although_the_convolution_does_not(activation: str, case: str) -> None:
    """As in EfficientNet: a pair in front of it lets the SiLU fuse, but it writes float."""
    excluded, further, expected = WITHOUT[case]
    text, name = ACTIVATIONS[activation]
    model = net(f"{text} {GATES['Conv'].format(name)} y = Conv(m, w)", further, before=" t = Sigmoid(u) a = Mul(u, t)")
    made = inserted(model, choices=Choices(tensorrt=8, exclude=frozenset(filter(None, [excluded]))))
    assert reasons(made) == {node: why for node, why in expected.items() if why != DEPTHWISE}
    assert ("a" in placed(made)) == (excluded != "b")
    assert not behind_pairs(made, "m").count(True)
    assert not {"b", "p", "i", "g"} & set(placed(made))


def test_a_convolution_of_a_gate_may_stay_float_alone() -> None:
    made = inserted(block("Relu", "Conv"), choices=Choices(tensorrt=8, exclude=frozenset("k")))
    assert reasons(made) == {"k": "excluded"}
    assert set(placed(made)) == {"x", "a", "c", "p", "g", "m"}


@pytest.mark.parametrize("tensor", ["c", "g"])
def test_a_gate_whose_product_lacks_a_scale_says_so(tensor: str) -> None:
    """As by a table without the gate's own tensors: --policy all, which helps against other reasons, would not help."""
    model = block("Relu", "Conv")
    made = inserted(model, {n: s for n, s in every_scale(model).items() if n != tensor}, EIGHT)
    assert reasons(made) == {"b": DEPTHWISE, "h": f"no scale: {tensor}", "k": f"no scale: {tensor}"}
    newer = inserted(model, {n: s for n, s in every_scale(model).items() if n != tensor})
    assert reasons(newer) == {"h": GATE, "k": GATE}


def test_a_gate_of_maxima_stays_float() -> None:
    made = inserted(net(f"c = Relu(b) {MAXIMUM.format('c')} y = Conv(m, w)"), choices=EIGHT)
    assert reasons(made) == {"b": DEPTHWISE, "h": GATE, "k": GATE}


@pytest.mark.parametrize(("middle", "weights"), [("group = 2", "wide"), ("group = 1", "dense")])
def test_a_gate_behind_another_convolution_stays_float(middle: str, weights: str) -> None:
    """A grouped one in INT8 took six times as long as in FP16 (RegNetY, TensorRT 8.6)."""
    model = net(f"c = Relu(b) {GATES['Conv'].format('c')} y = Conv(m, w)", middle=middle, weights=weights)
    made = inserted(model, choices=EIGHT)
    assert reasons(made) == {"h": GATE, "k": GATE}
    assert set(placed(made)) == {"x", "a", "m"}


@pytest.mark.parametrize("activation", ["HardSwish", "HardSwish, written out", "SiLU", "Relu"])
def test_a_convolution_of_images_writes_int8_through_hardswish_too(activation: str) -> None:
    text, name = ACTIVATIONS[activation]
    image, text = "(float[N, 3, 6, 6] x) => (float[N, 8, 6, 6] y)", f"b = Conv(x, stem) {text}"
    model = model_of(
        f"{image} {{ {text} z = Conv({name}, w) y = Conv(z, w) }}", 17, stem=noise(8, 3, 1, 1), w=noise(8, 8, 1, 1)
    )
    made = inserted(model, choices=EIGHT)
    assert reasons(made) == {}
    assert set(placed(made)) == {"x", name, "z"} | ({"b"} if activation in PAIRED else set())
    excluded = inserted(model, choices=Choices(tensorrt=8, exclude=frozenset("z")))
    assert reasons(excluded) == {"b": f"{FloatCause.FLOAT_OUTPUT.value} (3 input channels)", "z": "excluded"}
    assert placed(excluded) == ["z"]
    for half in PAIRED.get(activation, set()):
        half_excluded = inserted(model, choices=Choices(tensorrt=8, exclude=frozenset(half)))
        assert reasons(half_excluded) == {"b": f"{FloatCause.FLOAT_OUTPUT.value} (3 input channels)"}
        assert placed(half_excluded) == [name, "z"]
    assert placed(inserted(model)) == ["x", name, "z"]


@pytest.mark.parametrize(("width", "fast"), [(2, False), (4, True), (24, False), (32, True), (40, False), (64, True)])
def test_a_group_with_a_slow_kernel_stays_float_where_it_would_write_int8(width: int, fast: bool) -> None:
    size = 2 * width
    head = "(float[N, 8, 6, 6] x) => (float[N, 8, 6, 6] y)"
    text = "a = Conv(x, u) b = Conv<group = 2>(a, g) c = {}(b) y = Conv(c, v)"
    weights = {"u": noise(size, 8, 1, 1), "g": noise(size, width, 1, 1), "v": noise(8, size, 1, 1)}
    written, floats = (model_of(f"{head} {{ {text.format(kind)} }}", 17, **weights) for kind in ("Relu", "Softmax"))
    slow = {} if fast else {"b": f"{FloatCause.SLOW_KERNEL.value} (groups of {width} channels)"}
    assert reasons(inserted(written, choices=EIGHT)) == slow
    assert ("a" in placed(inserted(written, choices=EIGHT))) == fast
    assert reasons(inserted(floats, choices=EIGHT)) == {}, "it then computes in FP16"
    assert reasons(inserted(written)) == {}
    wanted = Choices(tensorrt=8, include=frozenset("b"))
    assert reasons(inserted(written, choices=wanted)) == {}
