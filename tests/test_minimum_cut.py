"""The cheapest split into float and INT8, against all splits of small networks."""

from __future__ import annotations

import math
from itertools import chain, combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantkit.errors import UsageError
from quantkit.minimum_cut import BorderCost, PrecisionCost, cheapest_split, split_cost

COSTS = st.integers(0, 12).map(lambda number: number / 4)  # exact in binary, and often equal


@st.composite
def networks(draw: st.DrawFn) -> tuple[dict[str, PrecisionCost], list[BorderCost]]:
    """Parts in a random graph without circles; tensors with several readers, inputs and ends among them."""
    names = [f"p{number}" for number in range(draw(st.integers(1, 6)))]
    parts = {}
    for name in names:
        costs = [draw(COSTS), draw(COSTS)]
        impossible = draw(st.sampled_from([None, None, None, 0, 1]))
        if impossible is not None:
            costs[impossible] = math.inf
        parts[name] = PrecisionCost(*costs)
    borders = []
    for _ in range(draw(st.integers(0, 8))):
        place = draw(st.integers(-1, len(names) - 1))
        later = [*names[place + 1 :], None]
        readers = draw(st.lists(st.sampled_from(later), min_size=1, max_size=3, unique=True))
        maker = None if place < 0 else names[place]
        borders.append(BorderCost(maker, tuple(readers), draw(COSTS), draw(COSTS)))
    return parts, borders


def all_splits(parts: dict[str, PrecisionCost]) -> list[frozenset[str]]:
    sizes = range(len(parts) + 1)
    return [frozenset(chosen) for chosen in chain.from_iterable(combinations(parts, size) for size in sizes)]


@given(networks())
@settings(max_examples=200, deadline=None)
def test_no_split_is_cheaper(made: tuple[dict[str, PrecisionCost], list[BorderCost]]) -> None:
    parts, borders = made
    costs = {split: split_cost(parts, borders, split) for split in all_splits(parts)}
    least = min(costs.values())
    found = cheapest_split(parts, borders)
    assert costs[found] == least
    assert all(found <= split for split, cost in costs.items() if cost == least), "ties go to float"


@given(networks(), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_the_order_of_parts_and_borders_does_not_matter(
    made: tuple[dict[str, PrecisionCost], list[BorderCost]], random: object
) -> None:
    parts, borders = made
    names, shuffled = list(parts), list(borders)
    random.shuffle(names)  # type: ignore[attr-defined]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert cheapest_split({name: parts[name] for name in names}, shuffled) == cheapest_split(parts, borders)


def test_a_part_that_is_slower_in_int8_is_carried_along_where_borders_cost_more() -> None:
    def chain_of(quantize: float, dequantize: float) -> frozenset[str]:
        parts = {"a": PrecisionCost(3, 1), "b": PrecisionCost(1, 2), "c": PrecisionCost(3, 1)}
        borders = [BorderCost("a", ("b",), quantize, dequantize), BorderCost("b", ("c",), quantize, dequantize)]
        return cheapest_split(parts, borders)

    assert chain_of(0.75, 0.5) == {"a", "b", "c"}
    assert chain_of(0.5, 0.25) == {"a", "c"}


def test_a_border_is_paid_once_for_all_readers() -> None:
    parts = {name: PrecisionCost(1.0, 0.5) for name in "abc"}
    assert cheapest_split(parts, [BorderCost(None, ("a", "b", "c"), 1.25)]) == {"a", "b", "c"}
    assert cheapest_split(parts, [BorderCost(None, (name,), 1.25) for name in "abc"]) == frozenset()


def test_the_ends_of_the_network_are_float() -> None:
    parts = {"a": PrecisionCost(1.0, 0.5)}
    assert cheapest_split(parts, [BorderCost("a", (None,), 0.0, 0.25)]) == {"a"}
    assert cheapest_split(parts, [BorderCost("a", (None,), 0.0, 0.5)]) == frozenset()


@pytest.mark.parametrize(
    ("parts", "borders", "text"),
    [
        ({"a": PrecisionCost(1.0, -1.0)}, [], "the cost of 'a' is -1.0"),
        ({"a": PrecisionCost(math.nan, 1.0)}, [], "the cost of 'a' is nan"),
        ({"a": PrecisionCost(1.0, 1.0)}, [BorderCost("a", ("b",), 1.0)], "names 'b', which has no cost"),
        ({"a": PrecisionCost(math.inf, math.inf)}, [], "no split into float and INT8 has a finite cost"),
        (
            {"a": PrecisionCost(1.0, math.inf), "b": PrecisionCost(math.inf, 1.0)},
            [BorderCost("a", ("b",), math.inf)],
            "no split into float and INT8 has a finite cost",
        ),
    ],
)
def test_impossible_costs_are_refused(parts: dict[str, PrecisionCost], borders: list[BorderCost], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        cheapest_split(parts, borders)
