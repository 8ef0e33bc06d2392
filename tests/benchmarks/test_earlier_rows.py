"""Results of placements that go on: a row is earlier once its network's default placement is another one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import pytest

from tests.support.qdq import inserted, model_of, noise

ROOT = Path(__file__).parents[2]


@pytest.fixture
def earlier(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    from placements import earlier

    return earlier


def results(date: str, **networks: dict[str, Any]) -> dict[str, Any]:
    return {"date": date, "level": 2, "networks": networks}


def row(digest: str | None, milliseconds: float | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {} if digest is None else {"default_pairs": digest}
    return found if milliseconds is None else {**found, "milliseconds": {"default": {"1": milliseconds}}}


def test_rows_stay_until_their_placement_changes(earlier: ModuleType) -> None:
    before = results(
        "2026-01-01", same=row("a", 1.0), other=row("a", 2.0), unknown=row(None, 3.0), absent=row(None, 4.0)
    )
    now = results("2026-02-01", same=row("a"), other=row("b"), unknown=row("b", 0.5))
    made = earlier.with_previous(now, {**before, "earlier": {"first": {"conditions": "", "networks": {}}}})
    assert made["networks"]["same"] == row("a", 1.0)
    assert made["networks"]["other"] == row("b")
    assert made["networks"]["unknown"] == row("b", 0.5)
    assert made["networks"]["absent"] == row(None, 4.0)
    first, changed = made["earlier"].values()
    assert first == {"conditions": "", "networks": {}}
    assert changed["networks"] == {"other": row("a", 2.0), "unknown": row(None, 3.0)}
    assert changed["conditions"].startswith("level 2, 2026-01-01; the default placement")


def test_going_on_twice_is_going_on_once(earlier: ModuleType) -> None:
    before = results("2026-01-01", net=row("a", 1.0))
    now = results("2026-02-01", net=row("b", 2.0))
    assert earlier.with_previous(now, before) == earlier.with_previous(now, before)
    once = earlier.with_previous(now, before)
    assert earlier.with_previous(now, once) == once


def test_a_digest_is_of_the_places_alone(earlier: ModuleType, tmp_path: Path) -> None:
    def digest(text: str, **scales: float) -> str:
        model = model_of(f"(float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y) {{ {text} }}", w=noise(4, 4, 1, 1))
        onnx.save(inserted(model, scales).proto, tmp_path / "net.onnx")
        found: Callable[[Path], str] = earlier.placement_digest
        return found(tmp_path / "net.onnx")

    one = digest("a = Conv(x, w) y = Conv(a, w)", x=0.1, a=0.2)
    assert one == digest("a = Conv(x, w) y = Conv(a, w)", x=0.3, a=0.4)
    assert one != digest("a = Conv(x, w) y = Conv(a, w)", x=0.1)
