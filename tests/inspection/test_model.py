"""inspect says what no other verb will look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import numpy_helper, parser

import quantkit


def test_operators_that_stay_float_are_counted_and_named(tmp_path: Path) -> None:
    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> net (float[N, 4] x, bool c) => (float[N, 4] y) {'
        ' m = MatMul(x, f) [first] a = Einsum<equation = "ij,jk->ik">(m, f)'
        ' [second] b = Einsum<equation = "ij,jk->ik">(a, f)'
        " [choice] y = If(c) <then_branch = yes () => (float[N, 4] t) { t = MatMul(b, f) },"
        " else_branch = no () => (float[N, 4] e) { e = Neg(b) }> }"
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.ones((4, 4), np.float32), "f"))
    (tmp_path / "net.onnx").write_bytes(proto.SerializeToString())
    found = quantkit.inspect(tmp_path / "net.onnx")
    assert found.weighted == 4
    assert list(found.stay_float) == ["first", "second", "t"]
    assert found.warnings == (
        "not observed: inside If 'choice': 2 operators",
        "2 of 4 operators with weights stay float, quantkit does not quantize Einsum: first, second",
        "1 of 4 operators with weights stay float, inside If: t",
    )
