"""Where the loss is: layers by their share of the noise, and tensors by their own error."""

from __future__ import annotations

from quantkit.report import charts_rows
from quantkit.report.page import Block, Cell, Drawing, Section, Table
from quantkit.report.wording import counted, decibel, number, percent, significant
from quantkit.sensitivity.result import LayerError, Sensitivity, TensorError

TENSORS = 12
"""Tensors that are shown at once; the others are folded away."""
NARROW = 350.0
LAYER_HEAD = (
    "layer",
    "rank",
    "operator",
    "share",
    "alone",
    "without it",
    "gain in float",
    "own output",
    "weights",
    "stays float because",
)


def layers_section(sensitivity: Sensitivity) -> Section:
    """The layers, ranked."""
    lead = (
        f"With everything quantized the outputs have {decibel(sensitivity.all_db)} of signal to noise, over "
        f"{counted(sensitivity.samples, 'sample')}. The bar of a layer is its share of the noise that all layers make "
        "alone; the second figure is what the outputs gain when it stays in float."
    )
    blocks: list[Block] = []
    if sensitivity.layers:
        rows = tuple(layer_row(rank, layer) for rank, layer in enumerate(sensitivity.layers, 1))
        folded = f"All {counted(len(rows), 'layer')} as a table" if len(rows) > 1 else "As a table"
        table = Table("Layers by their share of the noise", LAYER_HEAD, rows, frozenset({2, 9}), folded=folded)
        wide, narrow = charts_rows.layer_shares(sensitivity), charts_rows.layer_shares(sensitivity, NARROW)
        blocks.append(Drawing("layers-chart", wide, narrow, "", table))
    return Section("layers", "Layers that lose most", lead, tuple(blocks))


def layer_row(rank: int, layer: LayerError) -> tuple[Cell, ...]:
    """A layer's figures."""
    return (
        Cell(layer.node),
        Cell(str(rank)),
        Cell(layer.operator),
        Cell(percent(layer.share, 1)),
        Cell(decibel(layer.alone_db)),
        Cell(decibel(layer.without_db)),
        Cell(decibel(layer.gain_db)),
        Cell(decibel(layer.local_db)),
        Cell(f"{layer.parameters:,}"),
        Cell(layer.kept),
    )


def tensors_section(sensitivity: Sensitivity) -> Section:
    """The tensors, worst first."""
    lead = "Each tensor quantized by itself: signal to noise, what is clipped, and how many of the 256 levels are used."
    head = ("tensor", "node", "kind", "SQNR", "clipped", "levels", "scale", "rule")
    rows = tuple(tensor_row(tensor) for tensor in sensitivity.tensors)
    parts: list[Block] = [Table("Tensors, worst first", head, rows[:TENSORS], frozenset({1, 2, 7}))]
    if rows[TENSORS:]:
        folded = f"{counted(len(rows) - TENSORS, 'more tensor')}"
        parts.append(Table("The other tensors", head, rows[TENSORS:], frozenset({1, 2, 7}), folded=folded))
    return Section("tensors", "Tensors that lose most", lead, tuple(parts))


def tensor_row(tensor: TensorError) -> tuple[Cell, ...]:
    """A tensor's figures."""
    return (
        Cell(tensor.name),
        Cell(tensor.node),
        Cell("weights" if tensor.weight else "activation"),
        Cell(decibel(tensor.sqnr_db)),
        Cell(percent(tensor.clipped, 3)),
        Cell(number(tensor.levels, 0)),
        Cell(significant(tensor.scale)),
        Cell(tensor.rule),
    )
