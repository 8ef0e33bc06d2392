"""The readers under a million changed documents: what the benchmark counted."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.hostile import KINDS

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "fuzz.json"


def test_the_figures_are_of_a_million_documents_without_a_fault() -> None:
    """The benchmark was run over all kinds."""
    kinds = json.loads(RESULTS.read_text(encoding="utf-8"))["kinds"]
    assert set(kinds) == set(KINDS)
    assert sum(tally["inputs"] for tally in kinds.values()) >= 1_000_000
    assert not any(tally["faults"] for tally in kinds.values())
