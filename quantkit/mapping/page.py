"""The page of a map: one self-contained HTML file with the data of the map and the script that draws it.

The only script that the page's policy allows is ours, by its digest; names in the network are data, never markup.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantkit._version import __version__
from quantkit.errors import UsageError
from quantkit.mapping.layout import require_layout
from quantkit.mapping.operator_graph import CardKind, OperatorGraph
from quantkit.mapping.page_data import page_data
from quantkit.mapping.result import NetworkMap
from quantkit.mapping.wording import change_text, short_name
from quantkit.report.page import page_environment, read_resource
from quantkit.report.wording import count_noun
from quantkit.view import replace_unprintable

if TYPE_CHECKING:
    from jinja2 import Template

ESCAPED = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
"""Characters that would end a script, or a line in it, and their form in JSON."""


MOST_OPERATORS = 20_000
"""Operators up to which a page is drawn; browsers do not handle more well."""


def map_page(made: NetworkMap) -> str:
    """Return the page of a map: the same bytes for the same map.

    BackendError if the library that lays it out is not installed.
    """
    require_layout()
    script = read_map_resource("map.js")
    return replace_unprintable(
        map_template().render(
            made=made,
            version=__version__,
            charts_css=read_resource("chart.css"),
            map_css=read_map_resource("map.css"),
            script=script,
            digest=script_digest(script),
            data=script_json(page_data(made)),
            summary=summary_of(made),
            changes=change_rows(made),
        )
    )


def refuse_large_network(graph: OperatorGraph, path: Path) -> None:
    """Raise UsageError if a network has too many operators to draw. path: of its model."""
    count = sum(card.kind is CardKind.OPERATOR for card in graph.cards)
    if count > MOST_OPERATORS:
        raise UsageError(
            f"{path} has {count:,} operators; a page shows at most {MOST_OPERATORS:,}",
            remedy=f"print the facts instead: quantkit map {shlex.quote(str(path))} --json",
        )


def script_json(value: object) -> str:
    """Return JSON that can stand inside of a script element, whatever texts are in it."""
    text = json.dumps(printable(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return "".join(ESCAPED.get(character, character) for character in text)


def printable(value: Any) -> Any:
    """Return JSON values whose texts have nothing in them that a page cannot contain, or that reorders its text."""
    if isinstance(value, str):
        return replace_unprintable(value)
    if isinstance(value, Mapping):
        return {key: printable(item) for key, item in value.items()}
    return [printable(item) for item in value] if isinstance(value, (list, tuple)) else value


def script_digest(script: str) -> str:
    """Return the digest by which a page's policy allows a script (Content Security Policy Level 3, §2.3.1)."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def summary_of(made: NetworkMap) -> tuple[str, ...]:
    """Return what the map is of and made from, in sentences."""
    operators = sum(card.kind is CardKind.OPERATOR for card in made.cards)
    others = count_noun(sum(map(len, made.members)), "other node")
    counts = ", ".join(f"{count:,} {name}" for name, count in made.precisions.items() if name)
    sentences = [
        f"{count_noun(operators, 'operator')} and {others} in them (Q, DQ, constants, shapes)",
        f"precision of the operators: {counts}" if counts else "",
        f"{count_noun(made.blocks, 'folded block')}: stretches that come several times in the same form"
        if made.blocks
        else "",
        *made.described,
    ]
    if made.difference is not None:
        found = count_noun(len(made.difference.changes), "difference")
        sentences += [f"compared with {made.difference.other}: {found}", *made.difference.described]
    return tuple(sentence for sentence in sentences if sentence)


def change_rows(made: NetworkMap) -> tuple[tuple[str, str, str], ...]:
    """Return what differs from another map: node, operator, and the change in words."""
    if made.difference is None:
        return ()
    only = {"added": f"only in {made.difference.other}", "removed": f"not in {made.difference.other}"}
    return tuple(
        (short_name(c.name), c.operator, only.get(c.kind) or change_text(c.before, c.after))
        for c in made.difference.changes
    )


@lru_cache(maxsize=1)
def map_template() -> Template:
    """Return the template of the page; all values in it are escaped."""
    return page_environment("quantkit.mapping").get_template("map.html.j2")


@lru_cache(maxsize=4)
def read_map_resource(name: str) -> str:
    """Return the content of a file in the folder of templates."""
    return files("quantkit.mapping").joinpath("templates").joinpath(name).read_text(encoding="utf-8")
