"""When two Q/DQ nodes are equal, and which activations are quantized more than once."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from quantkit.qdq.reader import QdqGraph, QdqNode


def scale_key(node: QdqNode) -> bytes | None:
    """Return a key that is equal for equal scales; None if the scale is unknown."""
    return None if node.scale is None else np.asarray(node.scale, np.float64).ravel().tobytes()


def parameter_key(node: QdqNode) -> tuple[object, ...]:
    """Return a key that is equal for nodes that compute the same from the same tensor."""
    zero = 0 if node.zero is None or not node.zero.any() else node.zero.tobytes()
    rest = tuple(sorted((a.name, a.i) for a in node.node.attribute if a.name != "axis"))
    return scale_key(node), zero, node.stored, node.scale_type, node.axis if node.per_channel else None, rest


def scale_range_text(nodes: Iterable[QdqNode]) -> str:
    """Return the least and the largest scale, `0.01 … 0.2`."""
    values = sorted({float(node.scale.ravel()[0]) for node in nodes if node.scale is not None and node.scale.size})
    return f"{values[0]:.4g} … {values[-1]:.4g}" if values else ""


def group_quantizers(qdq: QdqGraph) -> dict[str, list[list[QdqNode]]]:
    """Return activation → its QuantizeLinear nodes, equal ones together."""
    found: dict[str, dict[tuple[object, ...], list[QdqNode]]] = {}
    for node in qdq.qdq_nodes.values():
        known = node.scale is not None and (node.zero is not None or not node.zero_name)
        if node.quantizes and known and node.data not in qdq.constants:
            found.setdefault(node.data, {}).setdefault(parameter_key(node), []).append(node)
    return {tensor: list(groups.values()) for tensor, groups in found.items()}
