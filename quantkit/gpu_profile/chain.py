"""Chains of operators as networks hold them, each in the forms that its Q/DQ pairs can take.

A chain begins and ends with a float operator, so that its measured layers hold the borders as well: Q in front of INT8,
DQ behind it. Form `float` has no pairs. The other forms differ in the places of the pairs, see `FORMS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import numpy as np

from quantkit.gpu_profile.branch_writer import BranchWriter

FORMS: Mapping[str, tuple[str, ...]] = {
    "conv": ("int8",),
    "depthwise": ("int8", "apart"),
    "strided": ("int8",),
    "stem": ("int8", "after"),
    "transposed": ("int8", "apart"),
    "gemm": ("int8",),
    "residual": ("one", "both", "none"),
    "pool": ("before", "after", "both"),
    "global-pool": ("after", "before", "both", "none"),
    "concat": ("after", "before", "unequal", "both"),
    "resize": ("after", "before", "both"),
    "excite": ("gate-float", "gate-int8"),
    "shared": ("int8", "twice"),
    "matmul": ("int8",),
    "perceptron": ("int8", "flat", "convolved"),
    "attention": ("weights", "all"),
    "convnext": ("int8", "apart"),
}
"""Kind of chain → its forms with Q/DQ.

apart: the operator that the kind is named after stays float. flat: products of matrices, not of stacks. convolved: 1×1
convolutions in place of the products.
"""
ALONE = frozenset({"matmul", "perceptron", "attention", "convnext"})
"""Kinds that TensorRT compiles as regions, which would swallow other branches: each has an engine of its own."""
CLASSES = 1000
HEAD = 64
"""Channels of one attention head."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain. channels, size (height and width; tokens), batch: those of its operators.

    kernel: height and width. act: what follows each convolution. width: channels of a group, 0 for one group.
    """

    kind: str
    channels: int
    size: int
    batch: int
    kernel: int = 1
    act: str = "Relu"
    width: int = 0
    stride: int = 1
    word: str = ""
    """The operator that is meant, where a kind has several (`MaxPool`)."""

    def document(self) -> dict[str, object]:
        """Return the fields that are not at their defaults, for JSON."""
        defaults = asdict(Chain(self.kind, self.channels, self.size, self.batch))
        always = ("kind", "channels", "size", "batch")
        return {k: v for k, v in asdict(self).items() if k in always or v != defaults[k]}


def chain_branch(chain: Chain, form: str, number: int) -> BranchWriter:
    """Write one chain in one form as a branch."""
    branch = BranchWriter(number, form)
    WRITERS[chain.kind](branch, chain)
    return branch


def activation(b: BranchWriter, x: str, act: str) -> str:
    """Add what follows an operator: the usual ONNX forms of the activations."""
    if act in ("Relu", "HardSwish", "Sigmoid", "Softplus"):
        return b.node(act, x)
    if act == "Relu6":
        return b.node("Clip", x, b.constant(np.float32(0)), b.constant(np.float32(6)))
    if act == "LeakyRelu":
        return b.node("LeakyRelu", x, alpha=0.1)
    if act == "SiLU":
        return b.node("Mul", x, b.node("Sigmoid", x))
    if act == "GELU":
        grown = b.node(
            "Add", b.node("Erf", b.node("Div", x, b.constant(np.float32(2**0.5)))), b.constant(np.float32(1))
        )
        return b.node("Mul", b.node("Mul", x, grown), b.constant(np.float32(0.5)))
    return x


def conv(
    b: BranchWriter, x: str, channels: tuple[int, int], *, kernel: int = 1, stride: int = 1, groups: int = 1,
    act: str = "Relu", int8: bool = True, paired: bool = False, weights: str = "",
) -> str:  # fmt: skip
    """Add a convolution with a bias and an activation. paired: its input is behind a pair already."""
    into, out = channels
    fan = into // groups * kernel**2
    x = b.pair(x) if int8 and not paired else x
    w = weights or b.paired_weights((out, into // groups, kernel, kernel), fan, 0, int8=int8)
    edge = 0 if kernel == stride else (kernel - 1) // 2  # patches do not overlap
    y = b.node(
        "Conv", x, w, b.weights((out,), 1000), kernel_shape=[kernel] * 2, strides=[stride] * 2, group=groups,
        pads=[edge] * 4,
    )  # fmt: skip
    return activation(b, y, act)


def begin(b: BranchWriter, c: Chain, act: str = "") -> str:
    """Add the input and the float convolution at the front."""
    x = b.input(c.batch, c.channels, c.size, c.size)
    return conv(b, x, (c.channels, c.channels), act=act or c.act, int8=False)


def end(b: BranchWriter, x: str, channels: int, act: str = "Relu") -> None:
    """Add the float convolution at the back, and the output."""
    b.step += 1
    b.output(conv(b, x, (channels, channels), act=act, int8=False))


def following(b: BranchWriter, x: str, c: Chain, *, int8: bool = True, paired: bool = False) -> str:
    """Add the next 1×1 convolution of a chain."""
    b.step += 1
    return conv(b, x, (c.channels, c.channels), act=c.act, int8=int8, paired=paired)


def write_conv(b: BranchWriter, c: Chain) -> None:
    """Five equal convolutions, the first and the last float."""
    groups = c.channels // c.width if c.width else 1
    x = b.input(c.batch, c.channels, c.size, c.size)
    for step in range(5):
        b.step = step
        pair = (c.channels, c.channels)
        x = conv(b, x, pair, kernel=c.kernel, groups=groups, act=c.act, int8=step in (1, 2, 3))
    b.output(x)


def write_depthwise(b: BranchWriter, c: Chain) -> None:
    """1×1 (float), depthwise, 1×1, depthwise, 1×1 (float)."""
    x = begin(b, c)
    for step in (1, 2, 3):
        b.step = step
        deep = step != 2
        x = conv(
            b, x, (c.channels, c.channels), kernel=c.kernel if deep else 1, groups=c.channels if deep else 1,
            act=c.act, int8=not (deep and b.form == "apart"), stride=c.stride if step == 3 else 1,
        )  # fmt: skip
    end(b, x, c.channels, c.act)


def write_strided(b: BranchWriter, c: Chain) -> None:
    """Float, INT8, the strided convolution to twice the channels, INT8, float."""
    x = following(b, begin(b, c), c)
    b.step += 1
    x = conv(b, x, (c.channels, 2 * c.channels), kernel=c.kernel, stride=2, act=c.act)
    b.step += 1
    x = conv(b, x, (2 * c.channels, 2 * c.channels), act=c.act)
    end(b, x, 2 * c.channels, c.act)


def write_stem(b: BranchWriter, c: Chain) -> None:
    """The first convolution of a network, on images, then INT8, then float. `after`: it stays float itself."""
    x = b.input(c.batch, 3, c.size, c.size)
    x = conv(
        b, x, (3, c.channels), kernel=c.kernel, stride=c.stride, act=c.act, int8=b.form == "int8",
    )  # fmt: skip
    end(b, following(b, x, c), c.channels, c.act)


def write_transposed(b: BranchWriter, c: Chain) -> None:
    """Float, INT8, ConvTranspose to twice the size and half the channels, INT8, float."""
    x = following(b, begin(b, c), c)
    b.step += 1
    int8, half = b.form == "int8", c.channels // 2
    w = b.paired_weights((c.channels, half, c.kernel, c.kernel), c.channels, 1, int8=int8)
    edge = (c.kernel - 2) // 2
    y = b.node(
        "ConvTranspose", b.pair(x) if int8 else x, w, b.weights((half,), 1000), kernel_shape=[c.kernel] * 2,
        strides=[2, 2], pads=[edge] * 4,
    )  # fmt: skip
    x = activation(b, y, c.act)
    b.step += 1
    end(b, conv(b, x, (half, half), act=c.act), half, c.act)


def write_gemm(b: BranchWriter, c: Chain) -> None:
    """Three fully connected layers, the last of them float."""
    x = b.input(c.batch, c.channels)
    for step in range(4):
        b.step, int8 = step, step in (1, 2)
        w = b.paired_weights((c.channels, c.channels), c.channels, 0, int8=int8)
        x = b.node("Gemm", b.pair(x) if int8 else x, w, b.weights((c.channels,), 1000), transB=1)
        x = activation(b, x, c.act)
    b.output(x, 2)


def write_residual(b: BranchWriter, c: Chain) -> None:
    """Two residual blocks of two convolutions. `one`: a pair on the skip; `both`; `none`: the Add reads floats."""
    x, pair = begin(b, c), (c.channels, c.channels)
    for _ in range(2):
        b.step += 1
        y = conv(b, x, pair, kernel=c.kernel)
        b.step += 1
        y = conv(b, y, pair, kernel=c.kernel, act="")
        skip = b.pair(x) if b.form in ("one", "both") else x
        x = b.node("Relu", b.node("Add", b.pair(y) if b.form == "both" else y, skip))
    end(b, following(b, x, c), c.channels)


def pool(b: BranchWriter, x: str, c: Chain) -> str:
    """Add the pool that a chain is about."""
    k = c.kernel
    edge = [(k - 1) // 2] * 4
    extra = {"count_include_pad": 1} if c.word == "AveragePool" else {}
    return b.node(c.word, x, kernel_shape=[k, k], strides=[c.stride] * 2, pads=edge, **extra)


def moved(b: BranchWriter, c: Chain, operator: Callable[[str], str]) -> None:
    """INT8, an operator with pairs before it, after it, or at both sides, INT8, float."""
    x = following(b, begin(b, c), c)
    b.step += 1
    y = operator(b.pair(x) if b.form in ("before", "both") else x)
    end(b, following(b, y, c, paired=b.form == "before"), c.channels, c.act)


def write_pool(b: BranchWriter, c: Chain) -> None:
    """A pool between convolutions."""
    moved(b, c, lambda x: pool(b, x, c))


def write_resize(b: BranchWriter, c: Chain) -> None:
    """A Resize to twice the size between convolutions. word: nearest or linear."""
    scales = b.constant(np.array([1, 1, 2, 2], np.float32))
    how = {"mode": c.word, "coordinate_transformation_mode": "asymmetric" if c.word == "nearest" else "half_pixel"}
    if c.word == "nearest":
        how["nearest_mode"] = "floor"
    moved(b, c, lambda x: b.node("Resize", x, "", scales, **how))


def write_global_pool(b: BranchWriter, c: Chain) -> None:
    """INT8, the global pool, the last Gemm. `after`: Gemm alone is INT8; `none`: both float."""
    x = following(b, begin(b, c), c)
    b.step += 1
    x = b.node("Flatten", b.node("GlobalAveragePool", b.pair(x) if b.form in ("before", "both") else x), axis=1)
    b.step += 1
    x = b.pair(x) if b.form in ("after", "both") else x
    w = b.paired_weights((CLASSES, c.channels), c.channels, 0, int8=b.form != "none")
    b.output(b.node("Gemm", x, w, b.weights((CLASSES,), 1000), transB=1), 2)


def write_concat(b: BranchWriter, c: Chain) -> None:
    """Two INT8 convolutions, joined, and one behind. `before`: pairs of one scale on the inputs; `unequal`: of two."""
    x = begin(b, c)
    b.step += 1
    parts = [conv(b, x, (c.channels, c.channels // 2), kernel=k, act=c.act) for k in (1, 3)]
    b.step += 1
    if b.form != "after":
        parts = [b.pair(y, 0.04 if k == 0 or b.form != "unequal" else 0.02) for k, y in enumerate(parts)]
    y = b.node("Concat", *parts, axis=1)
    end(b, following(b, y, c, paired=b.form in ("before", "unequal")), c.channels, c.act)


def write_excite(b: BranchWriter, c: Chain) -> None:
    """1×1, depthwise, squeeze and excite, 1×1. The two convolutions of the gate float or INT8."""
    x = following(b, begin(b, c), c)
    b.step += 1
    x = conv(b, x, (c.channels, c.channels), kernel=c.kernel, groups=c.channels, act=c.act)
    b.step += 1
    few, int8 = max(8, c.channels // 4 // 8 * 8), b.form == "gate-int8"
    y = conv(b, b.node("GlobalAveragePool", x), (c.channels, few), int8=int8)
    y = b.node("Sigmoid", conv(b, y, (few, c.channels), act="", int8=int8))
    end(b, following(b, b.node("Mul", x, y), c), c.channels, c.act)


def write_shared(b: BranchWriter, c: Chain) -> None:
    """One set of weights read by three convolutions. `twice`: each with a Q/DQ pair of its own."""
    x, shape, fan = begin(b, c), (c.channels, c.channels, c.kernel, c.kernel), c.channels * c.kernel**2
    once = "" if b.form == "twice" else b.paired_weights(shape, fan, 0, int8=True)
    raw = b.weights(shape, fan) if b.form == "twice" else ""
    for _ in range(3):
        b.step += 1
        w = once or weights_behind_pair(b, raw, c.channels, fan)
        x = conv(b, x, (c.channels, c.channels), kernel=c.kernel, act=c.act, weights=w)
    end(b, x, c.channels, c.act)


def weights_behind_pair(b: BranchWriter, name: str, channels: int, fan: int) -> str:
    """Add a pair of its own behind weights that others read as well."""
    most = np.float32(4.5 * (2 / fan) ** 0.5 / 127)
    scales = b.constant(np.full(channels, most, np.float32)), b.constant(np.zeros(channels, np.int8))
    return b.node("DequantizeLinear", b.node("QuantizeLinear", name, *scales, axis=0), *scales, axis=0)


def product(b: BranchWriter, x: str, shape: tuple[int, int], *, int8: bool = True) -> str:
    """Add a product with weights, and a bias."""
    w = b.paired_weights(shape, shape[0], 1, int8=int8)
    return b.node("Add", b.node("MatMul", b.pair(x) if int8 else x, w), b.weights((shape[1],), 1000))


def normalized(b: BranchWriter, x: str, channels: int) -> str:
    """Add a LayerNormalization."""
    ones = b.constant(np.ones(channels, np.float32)), b.constant(np.zeros(channels, np.float32) + np.float32(0.01))
    return b.node("LayerNormalization", x, *ones, axis=-1, epsilon=1e-6)


def write_matmul(b: BranchWriter, c: Chain) -> None:
    """Four products with weights, on tokens."""
    x = b.input(c.batch, c.size, c.channels)
    for step in range(4):
        b.step = step
        x = activation(b, product(b, x, (c.channels, c.channels)), c.act)
    b.output(x, 3)


def write_perceptron(b: BranchWriter, c: Chain) -> None:
    """Two residual blocks of a transformer: LayerNormalization, MatMul, GELU, MatMul, Add."""
    x = b.input(c.batch, c.size, c.channels)
    into, out = (c.channels, 4 * c.channels), (4 * c.channels, c.channels)
    whole = b.constant(np.array([c.batch, c.size, c.channels], np.int64))
    for step in range(2):
        b.step = step
        y = normalized(b, x, c.channels)
        if b.form == "convolved":
            image = b.constant(np.array([c.batch, c.channels, c.size, 1], np.int64))
            y = b.node("Reshape", b.node("Transpose", y, perm=[0, 2, 1]), image)
            y = conv(b, conv(b, y, into, act="GELU"), out, act="")
            y = b.node("Squeeze", y, b.constant(np.array([3], np.int64)))
            x = b.node("Add", x, b.node("Transpose", y, perm=[0, 2, 1]))
            continue
        y = b.node("Reshape", y, b.constant(np.array([-1, c.channels], np.int64))) if b.form == "flat" else y
        y = product(b, activation(b, product(b, y, into), "GELU"), out)
        x = b.node("Add", x, b.node("Reshape", y, whole) if b.form == "flat" else y)
    b.output(x, 3)


def write_attention(b: BranchWriter, c: Chain) -> None:
    """Two attention blocks. `weights`: products of two activations stay float; `all`: they do not."""
    x, heads = b.input(c.batch, c.size, c.channels), c.channels // HEAD
    inner = (lambda t: b.pair(t)) if b.form == "all" else (lambda t: t)
    split = b.constant(np.array([c.batch, c.size, 3, heads, HEAD], np.int64))
    joined = b.constant(np.array([c.batch, c.size, c.channels], np.int64))
    for step in range(2):
        b.step = step
        y = product(b, normalized(b, x, c.channels), (c.channels, 3 * c.channels))
        y = b.node("Transpose", b.node("Reshape", y, split), perm=[2, 0, 3, 1, 4])
        q, k, v = (b.node("Gather", y, b.constant(np.int64(i)), axis=0) for i in range(3))
        q = b.node("Mul", q, b.constant(np.float32(HEAD**-0.5)))
        scores = b.node("MatMul", inner(q), inner(b.node("Transpose", k, perm=[0, 1, 3, 2])))
        y = b.node("MatMul", inner(b.node("Softmax", scores, axis=-1)), inner(v))
        y = b.node("Reshape", b.node("Transpose", y, perm=[0, 2, 1, 3]), joined)
        x = b.node("Add", x, product(b, y, (c.channels, c.channels)))
    b.output(x, 3)


def write_convnext(b: BranchWriter, c: Chain) -> None:
    """Two ConvNeXt blocks. `apart`: the depthwise convolutions stay float."""
    x = b.input(c.batch, c.channels, c.size, c.size)
    for step in range(2):
        b.step = step
        y = conv(b, x, (c.channels,) * 2, kernel=7, groups=c.channels, act="", int8=b.form != "apart")
        y = normalized(b, b.node("Transpose", y, perm=[0, 2, 3, 1]), c.channels)
        y = activation(b, product(b, y, (c.channels, 4 * c.channels)), "GELU")
        y = b.node("Transpose", product(b, y, (4 * c.channels, c.channels)), perm=[0, 3, 1, 2])
        x = b.node("Add", x, y)
    b.output(x)


WRITERS: dict[str, Callable[[BranchWriter, Chain], None]] = {
    "conv": write_conv, "depthwise": write_depthwise, "strided": write_strided, "stem": write_stem,
    "transposed": write_transposed, "gemm": write_gemm, "residual": write_residual, "pool": write_pool,
    "global-pool": write_global_pool, "concat": write_concat, "resize": write_resize, "excite": write_excite,
    "shared": write_shared, "matmul": write_matmul, "perceptron": write_perceptron, "attention": write_attention,
    "convnext": write_convnext,
}  # fmt: skip
