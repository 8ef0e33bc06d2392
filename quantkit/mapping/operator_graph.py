"""The graph that a map draws: one card for each operator, input and output of a network.

    Q and DQ behind an activation     part of the card that makes the activation
    constants and shape arithmetic    part of the first card that reads them
    everything else                   a card of its own

So every node of the main graph is in exactly one card, and every edge leads to a later card.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from quantkit.graph.dependencies import constant_tensors
from quantkit.graph.index import Wiring, wire_graph
from quantkit.graph.model import Model, node_name
from quantkit.graph.operators import ACTIVATIONS, WEIGHTED
from quantkit.graph.subgraphs import captured_names, subgraphs
from quantkit.mapping.folding import CardForms
from quantkit.qdq.reader import is_qdq
from quantkit.qdq.weighted_operators import full_type

if TYPE_CHECKING:
    import onnx

TAILS = ACTIVATIONS | {"BatchNormalization"}
"""Operators that belong to the weighted operator whose only reader they are."""
NAMED_INSIDE = 40
"""Maximum number of inner operators that a card names."""


class CardKind(Enum):
    """The kind of a card."""

    INPUT = "input"
    OUTPUT = "output"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Card:
    """A card. name: of its node, or of the input or output. number: of its node in the graph, None for other cards.

    members: the other nodes in it, by number. form: what has to be equal for two cards to be of one form.
    """

    name: str
    kind: CardKind
    operator: str
    number: int | None = None
    members: tuple[int, ...] = ()
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    inside: str = ""
    form: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class OperatorGraph:
    """The cards of a network, so that every edge (from, to) leads to a later one; each edge is there once."""

    cards: tuple[Card, ...]
    edges: tuple[tuple[int, int], ...]
    wiring: Wiring
    owners: tuple[int, ...]
    """Node → its card."""
    maker_of: dict[str, int]
    """Tensor → the card that makes it."""


def operator_graph(model: Model) -> OperatorGraph:
    """Return the cards of a network."""
    graph = model.proto.graph
    wiring = wire_graph(graph)
    inputs = [value.name for value in model.inputs]
    constants = frozenset(constant_tensors(graph))
    owning = CardOwners(wiring, constants, inputs)
    numbers = [number for number, owner in enumerate(owning.owners) if owner == number]
    place = {number: len(inputs) + i for i, number in enumerate(numbers)}
    place |= {-1 - i: i for i in range(len(inputs))}
    owners = tuple(place[owner] for owner in owning.owners)
    members = defaultdict(list)
    for number, owner in enumerate(owning.owners):
        if owner != number:
            members[place[owner]].append(number)
    cards = [
        Card(n, CardKind.INPUT, "Input", None, tuple(members[i]), (), (n,), "", ("input",))
        for i, n in enumerate(inputs)
    ]
    cards += [operator_card(wiring.nodes[number], number, members[place[number]], constants) for number in numbers]
    first_output = len(cards)
    cards += [
        Card(value.name, CardKind.OUTPUT, "Output", None, (), (value.name,), (), "", ("output",))
        for value in graph.output
    ]
    maker_of = {name: i for i, name in enumerate(inputs)}
    maker_of |= {name: owners[number] for name, number in wiring.makers.items()}
    hidden = {number for number, owner in enumerate(owning.owners) if owner != number and owning.is_constant(number)}
    edges = set(edges_between(wiring, owners, maker_of, hidden))
    edges |= {
        (maker_of[value.name], first_output + i) for i, value in enumerate(graph.output) if value.name in maker_of
    }
    return OperatorGraph(tuple(cards), tuple(sorted(edges)), wiring, owners, maker_of)


def edges_between(
    wiring: Wiring, owners: tuple[int, ...], maker_of: dict[str, int], hidden: set[int]
) -> Iterator[tuple[int, int]]:
    """Yield the edges between the cards of nodes. hidden: constants inside of cards, which several cards may read."""
    for number, node in enumerate(wiring.nodes):
        for name in () if number in hidden else {*node.input, *captured_names(node)}:
            maker = maker_of.get(name)
            if maker is not None and maker != owners[number] and wiring.makers.get(name) not in hidden:
                yield maker, owners[number]


def operator_card(node: onnx.NodeProto, number: int, members: list[int], constants: frozenset[str]) -> Card:
    """Return the card of a node."""
    settings = sorted(f"{a.name}={list(a.ints) or a.i}" for a in node.attribute if a.name in FORM_ATTRIBUTES)
    arity = f"{sum(name in constants for name in node.input)}/{len(node.input)}"
    return Card(
        name=node_name(node),
        kind=CardKind.OPERATOR,
        operator=full_type(node),
        number=number,
        members=tuple(members),
        reads=tuple(name for name in node.input if name and name not in constants),
        writes=tuple(name for name in node.output if name),
        inside=describe_inside(node),
        form=(full_type(node), arity, *settings),
    )


FORM_ATTRIBUTES = frozenset({"kernel_shape", "dilations", "axis", "perm"})
"""Attributes in which two cards of one form agree; sizes and strides may differ, as between stages of a network."""


def describe_inside(node: onnx.NodeProto) -> str:
    """Return the operators in the subgraphs of a node by name: `then_branch: Conv a, Relu b`; empty without any."""
    parts = []
    for attribute in node.attribute:
        for graph in subgraphs(attribute):
            named = [f"{full_type(inner)} {node_name(inner)}" for inner in graph.node[:NAMED_INSIDE]]
            more = len(graph.node) - len(named)
            listed = ", ".join([*named, *([f"{more} more"] if more else [])])
            parts.append(f"{attribute.name}: {listed or 'nothing'}")
    return "; ".join(parts)


class CardOwners:
    """The node whose card each node is in: itself, another, or input i of the network as −1 − i."""

    def __init__(self, wiring: Wiring, constants: frozenset[str], inputs: list[str]) -> None:
        self._wiring, self._constants = wiring, constants
        self._input_cards = {name: -1 - i for i, name in enumerate(inputs)}
        self.owners = list(range(len(wiring.nodes)))
        for number, node in enumerate(wiring.nodes):
            if is_qdq(node) and not self.is_constant(number) and (maker := self._maker_to_join(node)) is not None:
                self.owners[number] = maker
        for number in reversed(range(len(wiring.nodes))):
            if (reader := self._reader_to_join(number)) is not None:
                self.owners[number] = reader

    def is_constant(self, number: int) -> bool:
        """Return whether nothing that a node makes depends on the data."""
        names = [name for name in self._wiring.nodes[number].output if name]
        return bool(names) and all(name in self._constants for name in names)

    def _maker_to_join(self, node: onnx.NodeProto) -> int | None:
        """Return the card that a Q or DQ of an activation is part of."""
        makers = [self._wiring.maker(name) for name in node.input[1:] if name]
        if any(maker is not None and maker.input for maker in makers):
            return None  # a scale that the network computes may depend on later cards
        source = node.input[0]
        if source in self._input_cards:
            return self._input_cards[source]
        number = self._wiring.makers.get(source)
        return None if number is None or source in self._constants else self.owners[number]

    def _reader_to_join(self, number: int) -> int | None:
        """Return the card that a constant is part of: the first that reads it."""
        node = self._wiring.nodes[number]
        if not self.is_constant(number):
            return None
        readers = {
            reader
            for name in node.output
            for reader in (
                *(r.number for r in self._wiring.readers.get(name, ())),
                *self._wiring.captured.get(name, ()),
            )
        }
        owners = {self.owners[reader] for reader in readers}
        if self._wiring.outputs & set(node.output) or not owners:
            return None
        return min(owners)


def count_operators(graph: OperatorGraph) -> Counter[str]:
    """Count the cards of each operator, the most frequent first."""
    return Counter(card.operator for card in graph.cards if card.kind is CardKind.OPERATOR)


def card_forms(graph: OperatorGraph) -> CardForms:
    """Return what folding looks at: inputs and outputs stay outside of blocks, and an activation with what it reads."""
    sources: dict[int, list[int]] = defaultdict(list)
    readers: Counter[int] = Counter()
    for start, end in graph.edges:
        sources[end].append(start)
        readers[start] += 1
    cards = graph.cards
    tails = {
        i
        for i, card in enumerate(cards)
        if card.operator in TAILS
        and sources[i] == [i - 1]
        and readers[i - 1] == 1
        and cards[i - 1].operator in WEIGHTED
    }
    return CardForms(
        forms=[card.form if card.kind is CardKind.OPERATOR else () for card in cards],
        sources=sources,
        seeds=frozenset(i for i, card in enumerate(cards) if card.operator in WEIGHTED),
        tails=frozenset(tails),
    )
