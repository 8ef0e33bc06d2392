"""Fixes: a copy of a Q/DQ network that computes the same numbers, and that TensorRT accepts.

Every rule says itself what it can fix exactly. Everything else stays as it is, to be quantized again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from quantkit.graph.model import Model
from quantkit.linting.finding import Finding
from quantkit.linting.graph_edit import GraphEdit
from quantkit.linting.registry import lint_graph, lint_rules
from quantkit.qdq.reader import read_qdq

if TYPE_CHECKING:
    import onnx


def fix_model(model: Model) -> tuple[onnx.ModelProto, tuple[Finding, ...]]:
    """Return a copy without the findings that can be fixed exactly, and those findings.

    The copy computes what the model computes, bit for bit; the model itself is untouched, and external weights stay
    where they are. One fix can reveal another (two pairs become equal), so it goes on until none is left.
    """
    fixed: list[Finding] = []
    while True:
        qdq = read_qdq(model)
        fixable = [finding for finding in lint_graph(qdq) if finding.fixable]
        if not fixable:
            return model.proto, tuple(fixed)
        fixed += fixable
        edit = GraphEdit(qdq)
        for rule in lint_rules():
            if rule.fix is not None:
                rule.fix(edit)
        model = replace(model, proto=edit.result())
