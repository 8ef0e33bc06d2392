"""The accuracy that was measured, replayed: what the pages claim has to be in it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "accuracy.json"
NETWORKS = ("resnet20", "mobilenetv2", "vit")
DEFAULT = "quantkit, with the data"


@pytest.fixture(scope="module")
def networks() -> dict[str, Any]:
    return json.loads(RESULTS.read_text(encoding="utf-8"))["networks"]


def test_the_page_shows_these_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    from accuracy import rendered

    document = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert RESULTS.with_suffix(".md").read_text(encoding="utf-8") == rendered(document)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_default_loses_little(networks: dict[str, Any], name: str) -> None:
    for way in (DEFAULT, "quantkit, statistics only"):
        lost = networks[name][way]
        assert lost["drop"] <= 0.1 + 2 * lost["drop_standard_error"]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_default_is_closer_than_every_symmetric_peer(networks: dict[str, Any], name: str) -> None:
    ours = networks[name][DEFAULT]
    peers = [figures for who, figures in networks[name].items() if not who.startswith(("quantkit", "FP32"))]
    assert len(peers) >= 2
    for peer in peers:
        assert ours["agreement"] > peer["agreement"] - 0.2, "two standard errors"
        assert ours["sqnr_db"] > peer["sqnr_db"]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_rule_is_the_default_by_measurement(networks: dict[str, Any], name: str) -> None:
    default = networks[name]["quantkit, statistics only"]["sqnr_db"]
    for rule in ("entropy", "minmax"):
        assert default >= networks[name][f"quantkit, statistics only, {rule}"]["sqnr_db"] + 0.3


@pytest.mark.parametrize("way", ["quantkit, statistics only", DEFAULT])
def test_a_detector_loses_nothing_that_a_thousand_images_show(networks: dict[str, Any], way: str) -> None:
    ours = networks["yolov8n"][way]
    assert ours["drop"] <= 0.05
    peers = [name for name in networks["yolov8n"] if not name.startswith(("quantkit", "FP32"))]
    assert len(peers) == 3
    assert all(networks["yolov8n"][peer]["drop"] > ours["interval"][1] for peer in peers)
