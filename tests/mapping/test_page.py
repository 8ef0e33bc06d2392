"""The page of a map: names are never markup, nothing is loaded, and it can be used with keys and on a phone."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from quantkit.errors import UsageError
from quantkit.graph.model import Model
from quantkit.mapping import page as page_module
from quantkit.mapping.difference import MapDifference, NodeChange
from quantkit.mapping.network_map import map_of, network_map
from quantkit.mapping.page import map_page, printable, script_digest, script_json
from quantkit.mapping.page_data import page_data
from quantkit.mapping.sources import MapSources
from quantkit.view import replace_unprintable
from tests.mapping.networks import as_model, chain_of_blocks, random_models
from tests.support.reports import TEXTS

pytestmark = pytest.mark.skipif(find_spec("fast_sugiyama") is None, reason="fast-sugiyama needs Python 3.11")


class Elements(HTMLParser):
    """The elements of a page, with the text of the scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] == "script" and self.cdata_elem == "script":
            self.scripts[-1] += data


def data_of(page: str) -> Any:
    """The data in a page."""
    return json.loads(Elements(page).scripts[0])


@settings(max_examples=25)
@given(random_models(TEXTS.filter(lambda text: "\ud800" not in text)), st.booleans())
def test_names_are_data_and_never_markup(model: Model, against: bool) -> None:
    made = map_of(model, MapSources())
    if against:
        changes = tuple(
            NodeChange(c.name, c.operator, "changed", {"reason": "<i>"}, {"reason": c.name}) for c in made.cards
        )
        made = page_module.NetworkMap(
            **{f: getattr(made, f) for f in made.__dataclass_fields__}
            | {"difference": MapDifference("<b>", (), changes)}
        )
    page = map_page(made)
    elements = Elements(page)
    kinds = {tag for tag, _ in elements.found}
    assert not kinds & {"img", "iframe", "object", "i", "b"}
    assert [tag for tag, _ in elements.found].count("script") == 2
    assert not [
        v for _, attributes in elements.found for n, v in attributes.items() if n.startswith("on") or n == "src"
    ]
    assert not {c for c in "\u2028\u2029\x00" if c in page}
    shown = [name for name, _, _ in data_of(page)["cards"]]
    for card, name in zip(made.cards, shown, strict=True):
        assert name == replace_unprintable(card.name) or len(card.name) > 300


@given(st.recursive(TEXTS, st.lists))
def test_json_in_a_script_ends_no_script_and_is_read_back(value: Any) -> None:
    text = script_json(value)
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == printable(value)


def test_the_page_loads_nothing_and_allows_its_own_script_alone() -> None:
    page = map_page(map_of(chain_of_blocks(3), MapSources()))
    elements = Elements(page)
    policy = next(a["content"] for t, a in elements.found if t == "meta" and a.get("http-equiv"))
    digest = script_digest(elements.scripts[1])
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert not re.findall(r"Math\.\w+\([^()]*\.\.\.", elements.scripts[1]), "browsers limit the number of arguments"
    assert not re.findall(r"(?:src|href)=\"(?!#|data:)", page)
    assert set(re.findall(r"https?://[\w./]*", page)) == {"http://www.w3.org/2000/svg"}
    assert map_page(map_of(chain_of_blocks(3), MapSources())) == page


def test_equal_blocks_share_their_layout_and_long_names_their_room() -> None:
    long = "n" * 100_000
    few, many = (len(map_page(map_of(chain_of_blocks(count), MapSources()))) for count in (10, 110))
    assert many - few < 100 * 5 * 400  # bytes for an operator
    model = as_model([helper.make_node("Relu", ["x"], ["y"], long)], ["y"])
    assert len(map_page(map_of(model, MapSources()))) < few + 10_000
    assert len(data_of(map_page(map_of(chain_of_blocks(110), MapSources())))["layouts"]) == 2


def test_a_network_that_is_too_large_to_draw_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = chain_of_blocks(3)
    count = sum(map_of(model, MapSources()).precisions.values())
    monkeypatch.setattr(page_module, "MOST_OPERATORS", count)
    network_map(model, tmp_path / "most.html")
    monkeypatch.setattr(page_module, "MOST_OPERATORS", count - 1)
    with pytest.raises(UsageError) as caught:
        network_map(model, tmp_path / "more.html")
    assert f"has {count} operators" in str(caught.value)
    assert caught.value.remedy.endswith("net.onnx --json")
    assert [path.name for path in tmp_path.iterdir()] == ["most.html"]
    assert network_map(model).path is None


def test_blocks_show_the_share_of_every_name_and_differences_stand_out() -> None:
    made = map_of(chain_of_blocks(3), MapSources())
    changes = (NodeChange(made.cards[3].name, made.cards[3].operator, "removed", {}, {}),)
    difference = MapDifference("other", (), changes)
    data = page_data(replace(made, difference=difference))
    assert data["blocks"]
    for mode in data["modes"]:
        for block, (bin_, _, *shares) in zip(data["blocks"], mode["blocks"], strict=True):
            own = [mode["cards"][card][0] for card in cards_of(data, block)]
            if mode["key"] == "change":
                assert bin_ == max(own)
            elif shares:
                assert [[b, pytest.approx(own.count(b) / len(own), abs=1e-3)] for b in sorted(set(own))] == shares[0]
            else:
                assert set(own) == {bin_}


def cards_of(data: Any, block: Any) -> list[int]:
    """The cards in a block of a page's data."""
    inner = ([item] if item >= 0 else cards_of(data, data["blocks"][-1 - item]) for item in block["items"])
    return [card for cards in inner for card in cards]


# ── in a browser ────────────────────────────────────────────────────────────────────────────────────────────────────

PROBE = """
const found = [], shown = () => document.querySelectorAll("#view .card").length;
const press = (key) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
const focused = () => document.activeElement.getAttribute("aria-label") ?? document.activeElement.id;
const say = (name, value) => found.push([name, value]);
say("cards", shown());
say("names", document.getElementById("view").textContent.includes("<\\/script><b>hostile</b>"));
document.querySelector('#view [tabindex="0"]').focus();
say("first", focused());
press("ArrowDown"); press("ArrowDown"); press("ArrowDown");
say("block", focused());
press("Enter");
say("unfolded", shown());
press("ArrowDown");
say("inside", focused());
press("Escape");
say("folded", [shown(), focused()]);
press("/");
const search = document.activeElement;
say("search", search.id);
search.value = "block.2/add"; search.dispatchEvent(new Event("input"));
say("matches", document.getElementById("count").textContent);
document.querySelector("#matches button").click();
say("opened", [shown(), document.querySelector("#panel h2").textContent]);
search.value = "block.2"; search.dispatchEvent(new Event("input"));
const next = () => {
  search.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter" }));
  return document.querySelector("#panel h2").textContent;
};
say("next", [next(), next()]);
const box = () => view.getAttribute("viewBox") !== null, view = document.getElementById("view");
window.dispatchEvent(new Event("beforeprint")); const printed = box(); window.dispatchEvent(new Event("afterprint"));
say("printed", [printed, box()]);
const moved = () => document.querySelector("#view > g").getAttribute("transform");
const pointer = (type, clientX, buttons) =>
  view.dispatchEvent(new PointerEvent(type, { pointerId: 1, clientX, clientY: 9, buttons }));
pointer("pointerdown", 9, 1); const before = moved(); pointer("pointermove", 90, 0); pointer("pointermove", 200, 0);
say("still", moved() === before);
const colour = document.getElementById("colour");
say("colours", [...colour.options].map((option) => option.text));
colour.value = 1; colour.dispatchEvent(new Event("change"));
say("legend", document.getElementById("legend").children.length);
document.getElementById("unfold").click(); say("all", shown());
document.getElementById("refold").click(); say("none", shown());
document.getElementById("nodes").open = true;
const root = document.documentElement;
setTimeout(() => {
  say("rows", document.querySelectorAll("#table tbody tr").length);
  say("wide", root.scrollWidth <= root.clientWidth);
  parent.document.title = JSON.stringify(found);
}, 200);
"""


def opened_in_browser(tmp_path: Path, page: str, width: int) -> dict[str, Any]:
    """What the probe finds in a page that is open in Chromium, as wide as a phone or a screen."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome", "chromium-headless-shell")
    chromium = next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        pytest.skip("no Chromium on the path")
    page = re.sub(r'<meta http-equiv="Content-Security-Policy".*?>', "", page)
    (tmp_path / "inner.html").write_text(page.replace("</body>", f"<script>{PROBE}</script></body>"), encoding="utf-8")
    frame = f'<iframe src="inner.html" style="width:{width}px;height:900px;border:0"></iframe>'
    (tmp_path / "page.html").write_text(f"<head><title>none</title></head><body>{frame}</body>", encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom"]
    options += [
        f"--user-data-dir={tmp_path / 'profile'}",
        "--allow-file-access-from-files",
        "--virtual-time-budget=4000",
    ]
    done = subprocess.run(
        [chromium, *options, "--window-size=1400,1000", (tmp_path / "page.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    told = re.search(r"<title>(\[.*?\])</title>", done.stdout, re.DOTALL)
    assert told, done.stdout[-2000:] + done.stderr[-2000:]
    return dict(json.loads(html.unescape(told[1])))


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_used_with_keys_and_fits_its_window(tmp_path: Path, width: int) -> None:
    model = chain_of_blocks(4)
    model.proto.graph.node[0].name = "</script><b>hostile</b>"
    found = opened_in_browser(tmp_path, map_page(map_of(model, MapSources())), width)
    folded = 2 + 4 + 3
    block = "Block net/block.0, 5 operators: 2 MatMul, 2 Relu, Add, precision 5 float"
    assert found == {
        "cards": folded,
        "names": True,
        "first": "Input x",
        "block": block,
        "unfolded": folded + 5,
        "inside": "MatMul net/block.0/MatMul_0, precision float",
        "folded": [folded, block],
        "search": "search",
        "matches": "1 of 25 match",
        "opened": [folded + 5, "net/block.2/Add_3"],
        "next": ["net/block.2/Relu_4", "net/block.2/MatMul_0"],
        "printed": [True, False],
        "still": True,
        "colours": ["precision", "operator"],
        "legend": 6,
        "all": folded + 4 * 5,
        "none": folded,
        "rows": 25,
        "wide": True,
    }


def test_the_verb_writes_the_page_and_does_not_replace_files(tmp_path: Path) -> None:
    target = tmp_path / "map.html"
    made = network_map(chain_of_blocks(2), target)
    assert made.path == target
    assert target.read_text(encoding="utf-8") == map_page(made)
