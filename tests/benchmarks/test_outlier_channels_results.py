"""A network some of whose channels are far larger than the others: the default rule keeps them apart, no other does."""

from __future__ import annotations

import json
from pathlib import Path

from quantkit.rules import DEFAULT_RULE

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "outlier_channels.json"


def test_the_default_is_far_ahead_of_every_rule_that_counts_channels_equally() -> None:
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    others = {rule: db for rule, db in found["sqnr_db"].items() if rule != DEFAULT_RULE}
    assert found["sqnr_db"][DEFAULT_RULE] > max(others.values()) + 3.0
    assert {"mse", "minmax", "entropy"} <= set(others)
    assert found["source"].startswith("https://")
    assert len(found["sha256"]) == 64
