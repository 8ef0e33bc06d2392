"""Divided products in NVIDIA's compiler, replayed."""

from __future__ import annotations

import json
from pathlib import Path

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "divided_products.json"


def test_dividing_gains_int8_products_and_moves_less_in_fewer_kernels() -> None:
    for part in json.loads(RESULTS.read_text(encoding="utf-8"))["float_part"].values():
        before, after = part["undivided"], part["divided"]
        assert after["int8_products"] > before["int8_products"]
        assert after["products"] == before["products"]
        assert after["kernels"] < before["kernels"]
        assert after["mib_moved"] < 0.8 * before["mib_moved"]
