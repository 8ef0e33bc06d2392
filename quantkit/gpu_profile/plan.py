"""The chains to measure, in the order of their importance, and the engines that hold them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from quantkit.gpu_profile.branch_writer import FLOAT
from quantkit.gpu_profile.chain import ALONE, FORMS, Chain

BATCHES = (1, 32, 8)
"""Batch sizes, the most important first."""
TOGETHER = 12
"""Branches of one engine: few enough that a lost engine costs little, enough that a build is paid for."""
MOST_VALUES = 260_000_000
"""Most values of all inputs of one engine, so that it fits on a GPU of 8 GB."""
SPATIAL = {
    56: (64, 256), 28: (128, 512), 14: (256, 1024), 7: (512, 2048), 112: (16, 64), 80: (64,), 40: (128,), 20: (256,),
    160: (32,),
}  # fmt: skip
"""Size → channels of 1×1 and 3×3 convolutions, as networks have them there."""
MORE_SPATIAL = {
    56: (24, 128), 28: (32, 64, 256), 14: (64, 128, 512), 7: (128, 256, 1024), 112: (32,), 80: (32, 128), 40: (64, 256),
    20: (128, 512), 160: (16, 64),
}  # fmt: skip
"""The rest of the grid."""


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """One engine: branches of the float forms, or of those with Q/DQ."""

    branches: tuple[tuple[Chain, str], ...]
    quantized: bool

    @property
    def words(self) -> str:
        """The engine in words: `Q/DQ chains of pool, residual`."""
        kinds = ", ".join(dict.fromkeys(chain.kind for chain, _ in self.branches))
        return f"{'Q/DQ' if self.quantized else 'FP16'} chains of {kinds}"


def engine_plans(batches: Sequence[int] = BATCHES) -> Iterator[EnginePlan]:
    """Yield all engines, the most important first: float and Q/DQ engines of the same chains after one another."""
    first, rest = batches[:2], batches[2:]
    stages = [
        (common_chains(SPATIAL), first), (lean_chains(), first), (token_chains(), first), (structural_chains(), first),
        (common_chains(MORE_SPATIAL), first), (less_common_chains(), first),
        (common_chains(SPATIAL), rest), (lean_chains(), rest), (token_chains(), rest), (structural_chains(), rest),
        (common_chains(MORE_SPATIAL), rest), (less_common_chains(), rest),
    ]  # fmt: skip
    for stage, (chains, sizes) in enumerate(stages):
        for batch in sizes:
            yield from engines_of([replace(chain, batch=batch) for chain in chains])
        if stage == 2:
            yield from check_engines(first)


def engines_of(chains: Iterable[Chain]) -> Iterator[EnginePlan]:
    """Divide chains into engines."""
    group: list[Chain] = []
    for chain in chains:
        if chain.kind in ALONE:
            yield from both_precisions([chain])
            continue
        if group and (branch_count([*group, chain]) > TOGETHER or values_of([*group, chain]) > MOST_VALUES):
            yield from both_precisions(group)
            group = []
        group.append(chain)
    if group:
        yield from both_precisions(group)


def both_precisions(chains: Sequence[Chain]) -> Iterator[EnginePlan]:
    """Yield the float engine of some chains, then the one with all their Q/DQ forms."""
    yield EnginePlan(tuple((chain, FLOAT) for chain in chains), quantized=False)
    forms = [(chain, form) for chain in chains for form in FORMS[chain.kind]]
    for branches in [[f] for f in forms] if chains[0].kind in ALONE else [forms]:
        yield EnginePlan(tuple(branches), quantized=True)


def check_engines(batches: Sequence[int]) -> Iterator[EnginePlan]:
    """Yield engines of one branch each: they check that a branch takes as long beside others as alone."""
    chains = [
        Chain("conv", 64, 56, 1, 3), Chain("conv", 256, 14, 1, 1), Chain("conv", 512, 7, 1, 3),
        Chain("conv", 128, 40, 1, 3), Chain("depthwise", 144, 56, 1, 3, "Relu6"), Chain("residual", 256, 14, 1, 3),
    ]  # fmt: skip
    for batch in batches:
        for chain in chains:
            for form in (FLOAT, FORMS[chain.kind][0]):
                yield EnginePlan(((replace(chain, batch=batch), form),), quantized=form != FLOAT)


def branch_count(chains: Sequence[Chain]) -> int:
    """Return the number of branches with Q/DQ."""
    return sum(len(FORMS[chain.kind]) for chain in chains)


def values_of(chains: Sequence[Chain]) -> int:
    """Return the number of input values of all branches with Q/DQ."""
    return sum(c.batch * c.channels * c.size**2 * len(FORMS[c.kind]) for c in chains)


def structural_chains() -> list[Chain]:
    """Return the chains that show which form of the same thing is faster."""
    return [
        Chain("residual", 64, 56, 1, 3), Chain("residual", 256, 14, 1, 3),
        Chain("pool", 64, 112, 1, 3, stride=2, word="MaxPool"), Chain("pool", 256, 20, 1, 5, word="MaxPool"),
        Chain("pool", 128, 28, 1, 2, stride=2, word="AveragePool"), Chain("global-pool", 512, 7, 1),
        Chain("concat", 128, 28, 1), Chain("resize", 128, 20, 1, word="nearest"),
        Chain("resize", 64, 28, 1, word="linear"), Chain("excite", 96, 28, 1, 3, "SiLU"),
        Chain("excite", 480, 14, 1, 5, "HardSwish"), Chain("stem", 64, 224, 1, 7, stride=2),
        Chain("stem", 32, 224, 1, 3, "SiLU", stride=2), Chain("shared", 128, 28, 1, 3),
        Chain("transposed", 128, 28, 1, 2), Chain("transposed", 64, 28, 1, 4, ""),
    ]  # fmt: skip


def common_chains(sizes: dict[int, tuple[int, ...]]) -> list[Chain]:
    """Return chains of 1×1 and 3×3 convolutions over channels and sizes."""
    return [
        Chain("conv", channels, size, 1, kernel)
        for size, widths in sizes.items()
        for channels in widths
        for kernel in (1, 3)
        if not (kernel == 3 and channels > 512)
    ]


def lean_chains() -> list[Chain]:
    """Return depthwise, grouped and strided convolutions, and convolutions with other activations behind them."""
    deep = [
        Chain("depthwise", channels, size, 1, kernel, act)
        for channels, size, kernel, act in (
            (32, 112, 3, "Relu6"), (144, 56, 3, "Relu6"), (192, 28, 3, "Relu6"), (576, 14, 3, "Relu6"),
            (960, 7, 3, "Relu6"), (240, 28, 5, "SiLU"), (672, 14, 5, "HardSwish"), (1152, 7, 5, "SiLU"),
        )
    ]  # fmt: skip
    grouped = [Chain("conv", c, s, 1, 3, width=w) for c, s, w in ((120, 28, 24), (336, 14, 24), (128, 56, 4))]
    strided = [Chain("strided", c, s, 1, k) for c, s, k in ((64, 56, 3), (128, 28, 3), (256, 14, 3), (256, 56, 1))]
    curved = [
        Chain("conv", channels, size, 1, kernel, act)
        for channels, size, kernel in ((64, 80, 3), (256, 14, 1))
        for act in ("SiLU", "HardSwish", "GELU", "LeakyRelu")
    ]
    return [*deep, *grouped, *strided, *curved, Chain("gemm", 512, 1, 1), Chain("gemm", 2048, 1, 1)]


def token_chains() -> list[Chain]:
    """Return what transformers and ConvNeXt are made of."""
    return [
        Chain("perceptron", 384, 197, 1), Chain("attention", 384, 197, 1), Chain("perceptron", 384, 256, 1),
        Chain("matmul", 768, 197, 1), Chain("convnext", 384, 14, 1, 7), Chain("convnext", 96, 56, 1, 7),
    ]  # fmt: skip


def less_common_chains() -> list[Chain]:
    """Return what few networks have."""
    return [
        Chain("conv", 8, 112, 1, 3), Chain("conv", 20, 56, 1, 3), Chain("conv", 40, 28, 1), Chain("conv", 48, 56, 1, 3),
        Chain("conv", 64, 28, 1, 5), Chain("conv", 256, 14, 1, 3, width=8), Chain("conv", 2048, 7, 1, 3, width=64),
        Chain("depthwise", 96, 112, 1, 3, "SiLU", stride=2), Chain("depthwise", 240, 28, 1, 3, "HardSwish", stride=2),
        Chain("pool", 64, 56, 1, 2, stride=2, word="MaxPool"), Chain("pool", 192, 28, 1, 3, word="AveragePool"),
        Chain("stem", 16, 640, 1, 3, "SiLU", stride=2), Chain("stem", 96, 224, 1, 4, "", stride=4),
        Chain("residual", 128, 28, 1, 1), Chain("global-pool", 1280, 7, 1), Chain("concat", 256, 20, 1),
        Chain("resize", 256, 40, 1, word="nearest"), Chain("conv", 16, 32, 1, 3), Chain("residual", 16, 32, 1, 3),
        Chain("residual", 64, 8, 1, 3),
    ]  # fmt: skip
