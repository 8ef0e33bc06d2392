"""Folding: no card is lost, equal blocks have equal edges, and blocks that are there are found."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantkit.mapping.folding import CardForms, FoldedBlock, FoldItem, cards_in, fold_repeats, least_period
from quantkit.mapping.operator_graph import card_forms, operator_graph
from tests.mapping.networks import chain_of_blocks, random_models


@st.composite
def random_cards(draw: st.DrawFn) -> CardForms:
    """Cards of few forms, so that much repeats, with edges from the cards just before."""
    count = draw(st.integers(1, 40))
    forms: list[tuple[str, ...]] = [draw(st.sampled_from([("a",), ("b",), ("c",), ()])) for _ in range(count)]
    sources = {
        i: sorted({max(0, i - draw(st.integers(1, 3))) for _ in range(draw(st.integers(1, 2)))})
        for i in range(1, count)
    }
    return CardForms(forms, sources)


def blocks_in(items: Sequence[FoldItem]) -> list[FoldedBlock]:
    """Blocks at all levels."""
    found = [item for item in items if isinstance(item, FoldedBlock)]
    return [*found, *(inner for block in found for inner in blocks_in(block.items))]


def shape_of(block: FoldedBlock, cards: CardForms) -> Any:
    """Forms of the cards of a block, and the edges among them by place."""
    place = {card: i for i, card in enumerate(block.cards)}
    edges = [(place[s], i) for card, i in place.items() for s in cards.sources.get(card, ()) if s in place]
    return [cards.forms[card] for card in block.cards], sorted(edges)


@given(random_cards())
def test_every_card_comes_once_and_in_order(cards: CardForms) -> None:
    assert list(cards_in(fold_repeats(cards))) == list(range(len(cards.forms)))


@given(random_cards())
def test_blocks_of_one_form_are_isomorphic_and_closed(cards: CardForms) -> None:
    readers = defaultdict(set)
    for card, sources in cards.sources.items():
        for source in sources:
            readers[source].add(card)
    kinds = defaultdict(list)
    for block in blocks_in(fold_repeats(cards)):
        kinds[block.kind].append(shape_of(block, cards))
        inside = set(block.cards)
        exits = [card for card in block.cards if readers[card] - inside or not readers[card]]
        assert exits == [block.cards[-1]]
    assert all(len(shapes) > 1 and all(shape == shapes[0] for shape in shapes) for shapes in kinds.values())


@given(random_models())
def test_networks_lose_no_card(model: Any) -> None:
    graph = operator_graph(model)
    assert list(cards_in(fold_repeats(card_forms(graph)))) == list(range(len(graph.cards)))


@pytest.mark.parametrize("count", [2, 3, 7, 40])
def test_a_chain_of_residual_blocks_is_folded_block_by_block(count: int) -> None:
    graph = operator_graph(chain_of_blocks(count))
    items = fold_repeats(card_forms(graph))
    blocks = [item for item in items if isinstance(item, FoldedBlock)]
    assert [[graph.cards[c].operator for c in b.cards] for b in blocks] == [
        ["MatMul", "Relu", "MatMul", "Add", "Relu"]
    ] * count
    assert len(items) == 2 + count + 3  # two operators before, Softmax, input and output


@given(st.lists(st.integers(0, 2), min_size=1, max_size=12))
def test_least_period_is_the_least(names: list[int]) -> None:
    slow = next(p for p in range(1, len(names) + 1) if all(a == b for a, b in zip(names, names[p:], strict=False)))
    assert least_period(names) == slow
