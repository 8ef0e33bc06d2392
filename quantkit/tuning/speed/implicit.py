"""TensorRT's own choice: the nodes that it runs in INT8 when a table lets it choose, as exclusions of a Q/DQ network.

With a table, TensorRT times every layer in FP16 and in INT8 and takes the faster path. Its choice, node by node, can be
written down in Q/DQ pairs: the nodes that it left in FP16 get none.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quantkit.backends.engine_record import EngineLayer


def nodes_left_float(layers: Sequence[EngineLayer], quantized: Collection[str]) -> frozenset[str]:
    """Return those of the nodes `quantized` that an implicit engine does not run in INT8.

    Nodes that no layer names are not among them: TensorRT merged or removed them, and what it chose is not known.
    """
    shown = {node for layer in layers if layer.computes for node in layer.nodes}
    int8 = {node for layer in layers if layer.precision == "INT8" for node in layer.nodes}
    return frozenset(node for node in quantized if node in shown and node not in int8)


def has_int8_layer(layers: Sequence[EngineLayer]) -> bool:
    """Return whether any layer of an engine computes in INT8."""
    return any(layer.precision == "INT8" and layer.computes for layer in layers)
