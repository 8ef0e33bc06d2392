"""The layout of one level of a map: a row and a place in it for every item, so that all edges lead downwards.

Layered drawing (K. Sugiyama, S. Tagawa, M. Toda, IEEE Trans. SMC 11(2), 1981) by the library fast-sugiyama. An edge
that passes rows has a bend in each of them.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from quantkit.errors import BackendError
from quantkit.extras import install_command

OLDEST_PYTHON = (3, 11)
"""The oldest Python that the library runs on."""
BEND = 0.35
"""Width of the place of a bend, where that of an item is 1."""
Edge = tuple[int, int]


@dataclass(frozen=True, slots=True)
class EdgePath:
    """An edge between two items, with the places of its bends, one in each row between."""

    start: int
    end: int
    bends: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class LevelLayout:
    """Rows and places of items. rows: 0 is at the top. places: centre of each item, in widths of an item."""

    rows: tuple[int, ...]
    places: tuple[float, ...]
    paths: tuple[EdgePath, ...]


def has_layout() -> bool:
    """Return True if the library that lays out maps is installed."""
    return find_spec("fast_sugiyama") is not None


def require_layout() -> None:
    """Raise BackendError if the library that lays out maps is not installed."""
    if has_layout():
        return
    remedy = install_command("map")
    if sys.version_info < OLDEST_PYTHON:
        remedy = f"draw the map with Python {'.'.join(map(str, OLDEST_PYTHON))} or newer, and {remedy}"
    raise BackendError("fast-sugiyama, which lays out the map, is not installed", remedy=remedy)


def lay_out(count: int, edges: Sequence[Edge]) -> LevelLayout:
    """Lay out `count` items with edges to later items. Parts that are not connected stand side by side."""
    rows, places = [0] * count, [0.0] * count
    paths: list[EdgePath] = []
    left = 0.0
    for items, own in components(count, sorted(set(edges))):
        part = lay_out_connected(len(items), own)
        low, high = extent(part)
        shift = left - low
        for item, row, place in zip(items, part.rows, part.places, strict=True):
            rows[item], places[item] = row, place + shift
        paths += [EdgePath(items[p.start], items[p.end], tuple(bend + shift for bend in p.bends)) for p in part.paths]
        left += high - low + 1.0
    return LevelLayout(tuple(rows), tuple(places), tuple(sorted(paths, key=lambda p: (p.start, p.end))))


def extent(layout: LevelLayout) -> tuple[float, float]:
    """Return the least and the largest place of items and bends."""
    every = [*layout.places, *(bend for path in layout.paths for bend in path.bends)]
    return min(every), max(every)


def components(count: int, edges: Sequence[Edge]) -> Iterator[tuple[list[int], list[Edge]]]:
    """Yield the connected parts of a graph: their items, and their edges between places in that list."""
    parents = list(range(count))

    def root(item: int) -> int:
        while parents[item] != item:
            parents[item] = parents[parents[item]]
            item = parents[item]
        return item

    for start, end in edges:
        parents[root(end)] = root(start)
    items: dict[int, list[int]] = defaultdict(list)
    for item in range(count):
        items[root(item)].append(item)
    own: dict[int, list[Edge]] = defaultdict(list)
    place = {item: i for group in items.values() for i, item in enumerate(group)}
    for start, end in edges:
        own[root(start)].append((place[start], place[end]))
    for key, group in items.items():
        yield group, own[key]


def lay_out_connected(count: int, edges: Sequence[Edge]) -> LevelLayout:
    """Lay out a graph in one part."""
    if count == 1:
        return LevelLayout((0,), (0.0,), ())
    from fast_sugiyama import from_edges

    found = from_edges(
        edges,
        vertex_spacing=1,
        dummy_vertices=True,
        dummy_size=BEND,
        ranking_type="minimize",
        crossing_minimization="barycenter",
        transpose=True,
    )
    positions, _, _, segments = found[0]
    at = dict(positions)
    top = max(y for _, y in at.values())
    behind: dict[int, list[int]] = defaultdict(list)
    for start, end in segments or ():
        behind[start].append(end)
    paths = []
    for start in range(count):
        for step in sorted(behind[start]):
            bends = []
            while step >= count:
                bends.append(float(at[step][0]))
                step = behind[step][0]
            paths.append(EdgePath(start, step, tuple(bends)))
    rows = tuple(round(top - at[item][1]) for item in range(count))
    return LevelLayout(rows, tuple(float(at[item][0]) for item in range(count)), tuple(paths))
