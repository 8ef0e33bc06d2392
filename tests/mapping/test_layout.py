"""Layout: edges lead downwards with a bend in every row that they pass, and nothing stands on anything else."""

from __future__ import annotations

import sys
from collections import defaultdict
from importlib.util import find_spec
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantkit.errors import BackendError
from quantkit.mapping import layout
from quantkit.mapping.layout import BEND, lay_out, require_layout

needs_layout = pytest.mark.skipif(find_spec("fast_sugiyama") is None, reason="fast-sugiyama needs Python 3.11")
EDGES = st.integers(1, 25).flatmap(
    lambda count: st.tuples(
        st.just(count),
        st.lists(
            st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)).filter(lambda e: e[0] < e[1]), max_size=40
        ),
    )
)


@needs_layout
@given(EDGES)
def test_edges_lead_downwards_and_items_stand_apart(graph: tuple[int, list[tuple[int, int]]]) -> None:
    count, edges = graph
    made = lay_out(count, edges)
    assert sorted((path.start, path.end) for path in made.paths) == sorted(set(edges))
    rows = defaultdict(list)
    for row, place in zip(made.rows, made.places, strict=True):
        rows[row].append((place, 1.0))
    for path in made.paths:
        assert made.rows[path.end] - made.rows[path.start] == len(path.bends) + 1 > 0
        for step, bend in enumerate(path.bends, 1):
            rows[made.rows[path.start] + step].append((bend, BEND))
    for row in rows.values():
        row.sort()
        assert all(b - a >= (wide + narrow) / 2 - 1e-6 for (a, wide), (b, narrow) in pairwise(row))
    assert lay_out(count, edges) == made


def test_without_the_library_one_line_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "has_layout", lambda: False)
    with pytest.raises(BackendError) as caught:
        require_layout()
    assert caught.value.problem == "fast-sugiyama, which lays out the map, is not installed"
    assert "pip install 'fast-sugiyama" in caught.value.remedy
    monkeypatch.setattr(sys, "version_info", (3, 10, 4))
    with pytest.raises(BackendError) as caught:
        require_layout()
    assert caught.value.remedy.startswith("draw the map with Python 3.11 or newer")
