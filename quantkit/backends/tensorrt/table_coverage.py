"""A calibration table compared with the tensors of a TensorRT network, and scales that can be added without data.

A table made from the ONNX graph lacks the tensors that TensorRT's parser adds: constants (a bias of an Add) and their
reshapes. Their values are in the network, and determine their scales: that of a constant from its own values by the
table's rule, as TensorRT does it, and that of a reshape from the tensor that it reshapes.

It also lacks what is inside an operator that the parser takes apart (the gate of a HardSwish), and floats that follow
from shapes alone: neither tells that a table is of another network.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from quantkit.backends.tensorrt.network import NetworkTensor
from quantkit.errors import TableError
from quantkit.histogram import HistogramMode
from quantkit.numerics import scale_of, usable_scale
from quantkit.rules import Rule, parse_rule, rule_of_calibrator
from quantkit.statistics import histogram_of
from quantkit.table import CalibrationTable


@dataclass(frozen=True, slots=True)
class CompletedTable:
    """A table as a build uses it. expected: number of tensors that a table of this network has; missing: those of them
    without a scale; completed: tensors whose scale was added; inner: tensors that only TensorRT has, without a scale;
    extra: names that the network does not have, which TensorRT ignores; zero: tensors whose scale was 0 in the table.
    """

    table: CalibrationTable
    expected: int
    missing: tuple[str, ...]
    completed: tuple[str, ...]
    inner: tuple[str, ...]
    extra: tuple[str, ...]
    zero: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """Fraction of the expected tensors that have a scale, 0 … 1."""
        return 1.0 - len(self.missing) / self.expected if self.expected else 0.0

    @property
    def unscaled(self) -> tuple[str, ...]:
        """All tensors without a scale."""
        return (*self.missing, *self.inner)


def table_rule(table: CalibrationTable, recorded: str | None) -> Rule:
    """Return the rule of a table: the one in its provenance record, else that of its header."""
    if recorded is not None:
        return parse_rule(recorded)
    return rule_of_calibrator(table.header.algorithm, table.header.quantile)


def complete_table(
    table: CalibrationTable, tensors: Sequence[NetworkTensor], rule: Rule, observed: Collection[str] | None = None
) -> CompletedTable:
    """Return the table with every scale that the network itself determines, and without scales of 0.

    observed: tensors of the ONNX graph that calibration observes; None: all tensors. They are what a table is expected
    to have.
    """
    scales = dict(table.scales)
    added: list[str] = []

    def add(name: str, scale: float) -> None:
        scales[name] = scale
        added.append(name)

    for tensor in tensors:
        values = tensor.constant
        if tensor.name not in scales and values is not None and values.size and np.isfinite(values).all():
            histogram = histogram_of(values, HistogramMode.TENSORRT)
            if histogram is not None:
                add(tensor.name, scale_of(rule.threshold(histogram)))

    def follow(tensor: NetworkTensor) -> None:
        if tensor.same_as and tensor.name not in scales and tensor.same_as in scales:
            add(tensor.name, scales[tensor.same_as])

    for tensor in tensors:
        follow(tensor)
    for tensor in reversed(tensors):
        if tensor.same_as and tensor.same_as not in scales and tensor.name in scales:
            add(tensor.same_as, scales[tensor.name])
    for tensor in tensors:  # once more, with the scales that were found backwards
        follow(tensor)
    names = [tensor.name for tensor in tensors]
    wanted = set(names)
    expected = [name for name in names if observed is None or name in observed]
    inner = wanted.difference(expected, scales)
    return CompletedTable(
        CalibrationTable(table.header, {name: usable_scale(scale) for name, scale in scales.items()}),
        len(expected),
        tuple(name for name in expected if name not in scales),
        tuple(name for name in added if name in wanted),
        tuple(name for name in names if name in inner),
        tuple(name for name in table.scales if name not in wanted),
        tuple(name for name, scale in table.scales.items() if not scale and name in wanted),
    )


def refuse_low_coverage(covered: CompletedTable, least: float, where: str) -> None:
    """Raise TableError where fewer than `least` of the tensors have a scale."""
    if covered.share < least:
        missing = ", ".join(covered.missing[:5]) + (" …" if len(covered.missing) > 5 else "")
        raise TableError(
            f"{where} covers {covered.share:.0%} of the network's {covered.expected} float tensors; missing: {missing}",
            remedy="give the table of this network, calibrate again, or accept it with a lower --min-coverage",
        )


def describe_inner(inner: Sequence[str]) -> tuple[str, ...]:
    """Return the note on tensors that only TensorRT has; empty without them."""
    if not inner:
        return ()
    tensors, them = ("1 tensor exists", "it") if len(inner) == 1 else (f"{len(inner)} tensors exist", "them")
    return (
        f"{tensors} only in TensorRT, which takes operators apart (a HardSwish) and computes shapes; a calibration "
        f"of the ONNX model cannot observe {them}. Layers at {them} are not INT8 (`no scale`), which is normal",
    )
