"""Tensors in which a large negative number means `leave out`."""

from __future__ import annotations

import pytest
from onnx import TensorProto, helper

from quantkit.graph.masked_scores import masked_scores


@pytest.mark.parametrize(
    ("domain", "operator", "place"),
    [("", "Attention", 3), ("com.microsoft", "Attention", 5), ("com.microsoft", "MultiHeadAttention", 5)],
)
@pytest.mark.parametrize("away", [0, -3])
def test_a_mask_that_attention_adds_to_its_scores_is_one(domain: str, operator: str, place: int, away: int) -> None:
    inputs = [f"i{k}" for k in range(place + 1)]
    inputs[place + away] = "mask"
    nodes = [
        helper.make_node("Unsqueeze", ["given", "axes"], ["mask"]),
        helper.make_node(operator, inputs, ["y"], domain=domain),
    ]
    names = ["given", *(name for name in inputs if name != "mask")]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    found = masked_scores(helper.make_graph(nodes, "net", values, [y]))
    assert {"mask", "given"} <= found if away == 0 else not {"mask", "given"} & found
