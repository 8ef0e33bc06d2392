"""Sections on the origin of the loss: layers by their share of the noise, and tensors by their own error."""

from __future__ import annotations

from quantkit.report import charts_rows
from quantkit.report.page import Block, Cell, Drawing, PageSection, PageTable
from quantkit.report.wording import count_noun, format_decibel, format_number, format_percent, format_significant
from quantkit.sensitivity.result import LayerError, Sensitivity, TensorError

TENSORS = 12
"""Tensors that are visible at first; the others are folded."""
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
    "reason for float",
)


def layers_section(sensitivity: Sensitivity) -> PageSection:
    """Return the section of ranked layers."""
    lead = (
        f"With all layers quantized, the SQNR of the outputs is {format_decibel(sensitivity.all_db)}, measured on "
        f"{count_noun(sensitivity.samples, 'sample')}. The bar of a layer is its share of the noise of all layers "
        "quantized alone; the second figure is what keeping the layer in float gains at the outputs."
    )
    blocks: list[Block] = []
    if sensitivity.layers:
        rows = tuple(layer_table_row(rank, layer) for rank, layer in enumerate(sensitivity.layers, 1))
        folded = f"All {count_noun(len(rows), 'layer')} as a table" if len(rows) > 1 else "As a table"
        table = PageTable("Layers by their share of the noise", LAYER_HEAD, rows, frozenset({2, 9}), folded=folded)
        wide, narrow = charts_rows.layer_share_plot(sensitivity), charts_rows.layer_share_plot(sensitivity, NARROW)
        blocks.append(Drawing("layers-chart", wide, narrow, "", table))
    return PageSection("layers", "Layers with the largest loss", lead, tuple(blocks))


def layer_table_row(rank: int, layer: LayerError) -> tuple[Cell, ...]:
    """Return the row of a layer."""
    return (
        Cell(layer.node),
        Cell(str(rank)),
        Cell(layer.title),
        Cell(format_percent(layer.share, 1)),
        Cell(format_decibel(layer.alone_db)),
        Cell(format_decibel(layer.without_db)),
        Cell(format_decibel(layer.gain_db)),
        Cell(format_decibel(layer.local_db)),
        Cell(f"{layer.parameters:,}"),
        Cell(layer.kept),
    )


def tensors_section(sensitivity: Sensitivity) -> PageSection:
    """Return the section of tensors, worst first."""
    lead = "Each tensor quantized by itself: SQNR, the clipped fraction, and how many of the 256 levels are used."
    head = ("tensor", "node", "kind", "SQNR", "clipped", "levels", "scale", "rule")
    rows = tuple(tensor_table_row(tensor) for tensor in sensitivity.tensors)
    parts: list[Block] = [PageTable("Tensors, worst first", head, rows[:TENSORS], frozenset({1, 2, 7}))]
    if rows[TENSORS:]:
        folded = f"{count_noun(len(rows) - TENSORS, 'more tensor')}"
        parts.append(PageTable("The other tensors", head, rows[TENSORS:], frozenset({1, 2, 7}), folded=folded))
    return PageSection("tensors", "Tensors with the largest loss", lead, tuple(parts))


def tensor_table_row(tensor: TensorError) -> tuple[Cell, ...]:
    """Return the row of a tensor."""
    return (
        Cell(tensor.name),
        Cell(tensor.node),
        Cell("weights" if tensor.weight else "activation"),
        Cell(format_decibel(tensor.sqnr_db)),
        Cell(format_percent(tensor.clipped, 3)),
        Cell(format_number(tensor.levels, 0)),
        Cell(format_significant(tensor.scale)),
        Cell(tensor.rule),
    )
