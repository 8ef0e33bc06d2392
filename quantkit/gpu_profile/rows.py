"""Rows of a GPU profile from measured engines: what an operator takes inside its chain, and what borders cost.

Steps of a chain are numbered as `chain` writes them. An operator's time is that of all layers of its step; Q and
reformatting in front of the first INT8 step belong to the border.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quantkit.gpu_profile.branch_writer import FLOAT
from quantkit.gpu_profile.chain import ALONE, Chain
from quantkit.gpu_profile.operator_size import OperatorKind, OperatorSize
from quantkit.gpu_profile.profile import BorderTime, FormTime, OperatorTime

CONVERSIONS = frozenset({"quantizelinear", "reformat", "dequantizelinear"})
"""Words of layers that only convert."""
CURVED_ACTS = frozenset({"SiLU", "HardSwish", "GELU", "Sigmoid"})
FEW = 0.0005
"""Milliseconds below which a layer cannot be: the profiler's own price, taken off, must not leave less."""


@dataclass(slots=True)
class BranchTime:
    """The milliseconds of one branch by step: of its operators, and of conversions in front of them; and spreads."""

    operators: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    conversions: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    spreads: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    whole: float | None = None
    """Of an engine of this branch alone."""

    def step(self, number: int) -> float:
        """Return what a step takes with its conversions."""
        return self.operators.get(number, 0.0) + self.conversions.get(number, 0.0)

    @property
    def total(self) -> float:
        """The whole time."""
        return self.whole or sum(self.operators.values()) + sum(self.conversions.values())


Branches = Mapping[tuple[Chain, str], BranchTime]


def branch_times(engines: Iterable[Mapping[str, Any]]) -> dict[tuple[Chain, str], BranchTime]:
    """Return the times of every branch of some measured engines; of a branch measured alone too, both."""
    found: dict[tuple[Chain, str], BranchTime] = {}
    for engine in engines:
        if "error" in engine:
            continue
        branches = [(Chain(**{k: v for k, v in b.items() if k != "form"}), str(b["form"])) for b in engine["branches"]]
        alone = branches[0] if len(branches) == 1 else None
        times = {key: BranchTime() for key in branches}
        for branch, step, words, _, milliseconds, spread, *_ in engine["layers"]:
            if branch is None or branch >= len(branches):
                continue
            time = times[branches[branch]]
            own = max(FEW, milliseconds - engine["overhead"])
            side = time.conversions if set(words.split("+")) <= CONVERSIONS else time.operators
            side[step or 0] += own
            time.spreads[step or 0] += spread
        if alone is not None:
            times[alone].whole = engine["graph"][1]
        for key, time in times.items():
            if key in found and alone is not None:
                found[key].whole = time.whole
            else:
                found[key] = time
    return found


def operator_rows(branches: Branches) -> list[OperatorTime]:
    """Return the operators that were measured in both precisions."""
    rows = []
    for (chain, form), plain in branches.items():
        if form != FLOAT:
            continue
        quantized = branches.get((chain, "int8"))
        if quantized is None:
            continue
        for step, size in measured_sizes(chain):
            fp16 = plain.total / PRODUCTS if step is None else plain.operators.get(step, 0.0)
            int8 = quantized.total / PRODUCTS if step is None else quantized.operators.get(step, 0.0)
            if fp16 and int8:
                spread = (0.0, 0.0) if step is None else (plain.spreads[step], quantized.spreads[step])
                rows.append(operator_row(size, fp16, int8, spread))
    return rows


def operator_row(size: OperatorSize, fp16: float, int8: float, spread: tuple[float, float]) -> OperatorTime:
    """Return a row, in microseconds."""
    return OperatorTime(
        kind=size.kind.value, inputs=size.inputs, outputs=size.outputs, rows=size.rows, kernel=float(size.kernel),
        stride=size.stride, width=size.width, curved=size.curved, fp16=round(1000 * fp16, 2),
        int8=round(1000 * int8, 2), fp16_spread=round(1000 * spread[0], 2), int8_spread=round(1000 * spread[1], 2),
    )  # fmt: skip


PRODUCTS = 4
"""Equal products in a chain of them that is measured as a whole."""


def measured_sizes(chain: Chain) -> list[tuple[int | None, OperatorSize]]:
    """Return the operators of a chain that lie between INT8 operators, by step; step None is the whole chain."""
    c, curved = chain.channels, chain.act in CURVED_ACTS
    rows = chain.batch * chain.size**2
    kernel, kind = chain.kernel, OperatorKind
    if chain.kind == "conv":
        return [
            (2, OperatorSize(kind.GROUPED if chain.width else kind.CONV, c, c, rows, kernel, 1, chain.width, curved))
        ]
    if chain.kind == "depthwise":
        return [
            (1, OperatorSize(kind.DEPTHWISE, c, c, rows, kernel, 1, 1, curved)),
            (2, OperatorSize(kind.CONV, c, c, rows, 1, 1, 0, curved)),
        ]
    if chain.kind == "strided":
        return [(2, OperatorSize(kind.CONV, c, 2 * c, rows // 4, kernel, 2, 0, curved))]
    if chain.kind == "stem":
        side = chain.size // chain.stride
        return [(0, OperatorSize(kind.CONV, 3, c, chain.batch * side**2, kernel, chain.stride, 0, curved))]
    if chain.kind == "transposed":
        return [(2, OperatorSize(kind.TRANSPOSED, c, c // 2, rows * 4, kernel, 2, 0, curved))]
    if chain.kind == "gemm":
        return [(1, OperatorSize(kind.GEMM, c, c, chain.batch))]
    if chain.kind == "matmul":
        return [(None, OperatorSize(kind.MATMUL, c, c, chain.batch * chain.size))]
    return []


def border_rows(branches: Branches) -> list[BorderTime]:
    """Return what tensors cost at borders, from the chains of equal convolutions."""
    rows = []
    for (chain, form), quantized in branches.items():
        plain = branches.get((chain, FLOAT))
        if chain.kind != "conv" or form != "int8" or plain is None:
            continue
        quantize = quantized.conversions.get(1, 0.0) + quantized.step(0) - plain.step(0)
        behind = quantized.step(3) - quantized.step(2) + quantized.step(4) - plain.step(4)
        values = chain.batch * chain.channels * chain.size**2
        rows.append(BorderTime(values=values, quantize=round(1000 * quantize, 2), dequantize=round(1000 * behind, 2)))
    return sorted(rows, key=lambda row: row.values)


def form_rows(branches: Branches) -> list[FormTime]:
    """Return what the chains take in each of their forms."""
    forms: dict[Chain, dict[str, float]] = defaultdict(dict)
    for (chain, form), time in branches.items():
        forms[chain][form] = round(1000 * time.total, 2)
    return [
        FormTime(
            kind=c.kind, channels=c.channels, size=c.size, batch=c.batch, kernel=c.kernel, word=c.word, act=c.act,
            fp16=times[FLOAT], forms={form: value for form, value in times.items() if form != FLOAT},
        )
        for c, times in forms.items()
        if FLOAT in times and len(times) > 1 and (len(times) > 2 or c.kind in ALONE)
    ]  # fmt: skip


def agreement_alone(engines: Sequence[Mapping[str, Any]]) -> list[tuple[Chain, str, float, float]]:
    """Return the branches that were also measured alone: chain, form, milliseconds beside others, and alone."""
    beside = branch_times(engine for engine in engines if len(engine["branches"]) > 1)
    alone = branch_times(engine for engine in engines if len(engine["branches"]) == 1)
    return [(*key, beside[key].total, alone[key].whole or 0.0) for key in alone.keys() & beside.keys()]
