"""Rows of earlier sittings: a row is kept as earlier once the default placement of its network is another one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PAIRS = "default_pairs"
"""Key of a network's record: the digest of the places of pairs in its default Q/DQ model."""


def placement_digest(model: Path) -> str:
    """Return the sha256 of the places of a Q/DQ model's pairs: which inputs of which nodes read what behind one.

    Scales and weights do not count.
    """
    import onnx

    nodes = onnx.load(str(model), load_external_data=False).graph.node
    makers = {output: node for node in nodes for output in node.output}
    found = []
    for node in nodes:
        for place, name in enumerate(node.input):
            dequantize = makers.get(name)
            if dequantize is None or dequantize.op_type != "DequantizeLinear" or node.op_type == "QuantizeLinear":
                continue
            quantize = makers.get(dequantize.input[0])
            found.append([node.name, place, dequantize.input[0] if quantize is None else quantize.input[0]])
    return hashlib.sha256(json.dumps(sorted(found)).encode()).hexdigest()


def with_previous(document: Mapping[str, Any], previous: Mapping[str, Any]) -> dict[str, Any]:
    """Return results with those of earlier runs. document, previous: as in results/placement.json.

    A network that was not timed anew keeps its row, unless its default placement is known to be another one now. What
    was timed with another placement, or with one that is not known, becomes a sitting of `earlier`.
    """
    networks, earlier = dict(document["networks"]), {**previous.get("earlier", {}), **document.get("earlier", {})}
    changed = {}
    for name, before in previous["networks"].items():
        now = networks.get(name, {})
        if PAIRS in now and before.get(PAIRS) != now[PAIRS]:
            changed[name] = before
        elif "milliseconds" not in now:
            networks[name] = {**now, **before}
    if changed:
        conditions = (
            f"level {previous['level']}, {previous['date']}; the default placement of these networks has changed since"
        )
        key = f"until {document['date']}: {', '.join(changed)}"
        earlier[key] = {"conditions": conditions, "networks": changed}
    return {**document, "networks": networks, "earlier": earlier}
