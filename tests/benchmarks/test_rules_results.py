"""Rules over fifteen networks, replayed: the page shows the figures, and what is claimed for the default is in them."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "rules.json"
HELD_OUT = ("512",)
"""Numbers of images of which some are held out, so that a rule is chosen."""


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that writes the page."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import rule_page

    return rule_page


@pytest.fixture(scope="module")
def document() -> Any:
    """The results."""
    return json.loads(RESULTS.read_text(encoding="utf-8"))


def test_the_page_shows_these_figures(page: ModuleType, document: Any) -> None:
    assert RESULTS.with_suffix(".md").read_text(encoding="utf-8") == page.rendered(document)


def test_with_data_no_network_is_far_below_its_best_single_rule(page: ModuleType, document: Any) -> None:
    for name, figures in document["networks"].items():
        for count in HELD_OUT:
            assert page.below_best(figures[count], page.WITH_DATA) <= 0.5, (name, count)


def test_with_data_nine_of_ten_networks_are_ahead_of_every_peer(page: ModuleType, document: Any) -> None:
    networks = document["networks"]
    ahead = [name for name, figures in networks.items() if page.better_than_peers(figures, page.WITH_DATA)]
    assert len(networks) >= 11
    assert len(ahead) >= 0.9 * len(networks)
    for figures in networks.values():
        assert len(figures["peers"]) >= 3, "FP32 and at least two peers"


def test_float16_networks_reach_their_float32_twins(document: Any) -> None:
    lost = [
        figures["512"][way]["sqnr_db"] - figures["512"][f"float16, {way}"]["sqnr_db"]
        for figures in document["networks"].values()
        for way in ("wmse", "with data")
    ]
    assert sum(lost) / len(lost) <= 0.1
    assert max(lost) <= 1.0


def row(**decibels: float) -> dict[str, dict[str, float]]:
    """Figures of ways, of which only the SQNR counts."""
    return {name: {"sqnr_db": value} for name, value in decibels.items()}


def test_a_network_has_no_say_in_the_default_that_is_applied_to_it(page: ModuleType) -> None:
    rules = {"wmse": 30.0, "mse": 31.0, "minmax": 20.0, "entropy": 20.0, "percentile:99.99": 20.0}
    other = rules | {"wmse": 36.0, "mse": 30.0}
    networks = {name: {"8": row(**rules)} for name in ("a", "b")} | {"c": {"8": row(**other)}}
    assert page.chosen_default(networks, ["8"]) == "wmse"  # c alone tips the balance
    assert page.chosen_default(networks, ["8"], without="c") == "mse"
    assert page.below_best(networks["c"]["8"], "mse") == 6.0


def test_a_peer_that_made_no_model_is_not_beaten_or_counted(page: ModuleType) -> None:
    figures = {"512": row(wmse=30.0), "peers": row(**{"modelopt max": 29.0})}
    assert page.better_than_peers(figures, "wmse")
    assert not page.better_than_peers(figures | {"peers": row(**{"modelopt max": 30.0})}, "wmse")
