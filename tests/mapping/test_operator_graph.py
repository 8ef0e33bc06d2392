"""Cards: every node of a network is in exactly one, and edges lead to later cards."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from onnx import TensorProto, helper

from quantkit.graph.dependencies import constant_tensors
from quantkit.graph.model import Model
from quantkit.mapping.operator_graph import CardKind, operator_graph
from tests.mapping.networks import as_model, quantized, random_models


@given(random_models())
def test_every_node_is_in_exactly_one_card(model: Model) -> None:
    graph = operator_graph(model)
    own = Counter(card.number for card in graph.cards if card.number is not None)
    own.update(number for card in graph.cards for number in card.members)
    assert own == Counter(range(len(graph.wiring.nodes)))


@given(random_models())
def test_edges_lead_to_later_cards_and_lose_no_activation(model: Model) -> None:
    graph = operator_graph(model)
    assert all(start < end for start, end in graph.edges)
    constants = constant_tensors(model.proto.graph)
    for number, node in enumerate(graph.wiring.nodes):
        if node.op_type in ("Constant", "Shape"):
            continue
        for name in node.input:
            if name in graph.maker_of and name not in constants:
                assert graph.maker_of[name] == graph.owners[number] or (
                    (graph.maker_of[name], graph.owners[number]) in graph.edges
                )


def test_q_dq_and_constants_are_inside_of_cards() -> None:
    nodes = [
        *quantized("x"),
        helper.make_node("Constant", [], ["c"], "const", value=helper.make_tensor("v", TensorProto.FLOAT, [1], [2.0])),
        helper.make_node("Mul", ["x.dq", "c"], ["m"], "mul"),
        *quantized("m"),
        helper.make_node("Relu", ["m.dq"], ["y"], "relu"),
    ]
    graph = operator_graph(as_model(nodes, ["y"]))
    inside = [[graph.wiring.name(n) for n in card.members] for card in graph.cards]
    assert [card.name for card in graph.cards] == ["x", "mul", "relu", "y"]
    assert inside == [["x.Q", "x.DQ"], ["const", "m.Q", "m.DQ"], [], []]
    assert graph.edges == ((0, 1), (1, 2), (2, 3))


def test_control_flow_is_a_card_that_names_its_content() -> None:
    def branch(operator: str) -> object:
        inner = helper.make_node(operator, ["x"], ["o"], f"in/{operator}")
        return helper.make_graph([inner], "g", [], [helper.make_tensor_value_info("o", 1, None)])

    nodes = [
        helper.make_node("Constant", [], ["c"], "k", value=helper.make_tensor("v", TensorProto.BOOL, [1], [True])),
        helper.make_node("If", ["c"], ["y"], "if", then_branch=branch("Relu"), else_branch=branch("Abs")),
    ]
    graph = operator_graph(as_model(nodes, ["y"]))
    card = next(card for card in graph.cards if card.operator == "If")
    assert card.inside == "else_branch: Abs in/Abs; then_branch: Relu in/Relu"
    assert graph.edges == ((0, 1), (1, 2))  # the branches read x
    assert [card.kind for card in graph.cards] == [CardKind.INPUT, CardKind.OPERATOR, CardKind.OUTPUT]
