"""Placements that were timed side by side on a GPU, replayed: which rows there are, and which laws they keep."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quantkit.engines.round_times import RoundTimes

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "placement.json"
DOCUMENT: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
EXPECTED = {
    "resnet50", "regnety", "mobilenetv3", "efficientnet-b0", "convnext-tiny", "deit-small", "yolov8n", "resnet20",
    "mobilenetv2", "vit", "shared-head",
}  # fmt: skip
TIMED = {"resnet20", "resnet50", "mobilenetv2", "yolov8n"}
"""Networks with a row of FP16, modelopt, the default and the tuned model, so far."""
NOT_READ = {"vit", "mobilenetv3", "efficientnet-b0"}
"""Networks of which TensorRT 8.6 cannot parse what modelopt 0.47 writes."""
TABLE_NOT_TRIED = {
    ("mobilenetv2", "32"),
    ("yolov8n", "1"),
    ("yolov8n", "8"),
    ("shared-head", "1"),
}
"""Rows where INT8 by a table is the fastest, and the tuning of 0.9 or 2.2 minutes had no time for it."""
UNDER_A_TENTH = {("mobilenetv2", "32"), ("yolov8n", "1")}
"""Those of them where what was chosen instead gains less than a tenth."""
OTHERS = ("fp16", "table", "modelopt", "default")
BUDGET = 10
"""Images of 10,000: 0.1 percentage points."""
Row = tuple[str, str]


def rows(*kinds: str) -> Iterator[tuple[Row, dict[str, RoundTimes]]]:
    """Network and batch size with the times of its engines, where all of `kinds` were timed."""
    for name, network in DOCUMENT["networks"].items():
        times = network.get("milliseconds", {})
        for batch in times.get("fp16", {}):
            found = {kind: RoundTimes(tuple(t[batch]["rounds"])) for kind, t in times.items() if batch in t}
            if found.keys() >= set(kinds):
                yield (name, batch), found


def test_the_page_shows_these_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    from placements.report import rendered

    assert RESULTS.with_suffix(".md").read_text(encoding="utf-8") == rendered(DOCUMENT)


def test_medians_are_those_of_the_rounds() -> None:
    assert DOCUMENT["machine"] == "NVIDIA H200, TensorRT 8.6.0"
    assert DOCUMENT["level"] == 2
    for (name, batch), found in rows():
        for kind, times in found.items():
            said = DOCUMENT["networks"][name]["milliseconds"][kind][batch]
            assert len(times.rounds) >= 5
            assert said["median"] == pytest.approx(times.median, rel=1e-3)
            assert said["spread"] == pytest.approx(times.spread, abs=1e-3)


def test_the_rows_are_those_that_ran() -> None:
    found = list(rows("fp16", "modelopt", "default", "tuned"))
    assert {name for (name, _), _ in found} == TIMED < EXPECTED
    assert all("table" in times for _, times in found)


def test_the_default_is_never_slower_than_modelopt() -> None:
    slower = {row for row, t in rows("default", "modelopt") if t["modelopt"].is_faster_than(t["default"])}
    assert not slower


def test_tuned_is_never_slower_than_any_other() -> None:
    slower = {
        row for row, t in rows("tuned") if any(t[kind].is_faster_than(t["tuned"]) for kind in OTHERS if kind in t)
    }
    assert slower == TABLE_NOT_TRIED


def test_tuned_gains_a_tenth_wherever_any_engine_does() -> None:
    missed = set()
    for row, times in rows("tuned"):
        gains = {kind: times["fp16"].median / t.median for kind, t in times.items() if kind != "fp16 as exported"}
        if max(gains.values()) >= 1.1 > gains["tuned"]:
            missed.add(row)
    assert missed == UNDER_A_TENTH < TABLE_NOT_TRIED


def test_a_head_that_levels_share_is_faster_than_in_fp16() -> None:
    """What modelopt writes of it does not build."""
    times = {row: found for row, found in rows("default") if row[0] == "shared-head"}
    assert all(found["fp16"].median >= 1.2 * found["default"].median for found in times.values())
    assert len(times) == 2
    assert error_of(DOCUMENT["networks"]["shared-head"], "modelopt").startswith("TensorRT found no kernel")


def test_resnet20_is_fast_inside_the_budget() -> None:
    times = DOCUMENT["networks"]["resnet20"]["milliseconds"]
    correct = DOCUMENT["networks"]["resnet20"]["correct"]
    assert correct["images"] == 10_000
    for kind in ("default", "tuned"):
        assert times[kind]["32"]["median"] <= 0.140
        assert correct["engines"]["fp32"] - correct["engines"][kind] <= BUDGET


def test_tuning_says_what_it_took_and_what_it_had_no_time_for() -> None:
    for name in TIMED:
        tuning = DOCUMENT["networks"][name]["tuning"]
        built = [c for c in tuning["candidates"] if c["build_seconds"] is not None]
        assert tuning["builds"] == len(built) >= 2
        assert tuning["seconds"] >= tuning["build_seconds"] > 0
        assert any("no time was left" in note for note in tuning["notes"])


def test_a_repetition_chooses_the_same_or_a_tie() -> None:
    repeated = {name: network for name, network in DOCUMENT["networks"].items() if "repeat" in network}
    if not repeated:
        pytest.skip("no tuning has been repeated on a GPU yet")
    for network in repeated.values():
        for batch, first in network["repeat_milliseconds"]["tuning"].items():
            again = RoundTimes(tuple(network["repeat_milliseconds"]["repeat"][batch]["rounds"]))
            assert network["repeat"]["chosen"] == network["tuning"]["chosen"] or not (
                again.is_faster_than(RoundTimes(tuple(first["rounds"])))
                or RoundTimes(tuple(first["rounds"])).is_faster_than(again)
            )


def test_engines_that_are_missing_say_why() -> None:
    missing = {name for name, known in DOCUMENT["networks"].items() if "cannot parse" in error_of(known, "modelopt")}
    assert missing == NOT_READ


def test_rows_of_another_placement_are_earlier_ones() -> None:
    for sitting in DOCUMENT["earlier"].values():
        for name, network in sitting["networks"].items():
            digest = network.get("default_pairs")
            assert digest is None or digest != DOCUMENT["networks"][name]["default_pairs"]


def error_of(known: dict[str, Any], kind: str) -> str:
    """Why an engine of a network was not built; empty if it was."""
    return str(known.get("engines", {}).get(kind, {}).get("error", ""))
