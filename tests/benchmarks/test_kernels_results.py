"""The profile of an H200, replayed: what follows from it, and how far its estimates can be trusted."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

from quantkit.gpu_profile.estimate import border_costs, estimate_among
from quantkit.gpu_profile.profile import FormTime, OperatorTime, load_profile, profile_text

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "kernels-h200-trt8.6.json"
PROFILE = load_profile(RESULTS)
CLEAR = 1.1
"""A ratio of two times that is more than noise and the rest of a layer."""


def forms(kind: str) -> list[FormTime]:
    return [form for form in PROFILE.forms if form.kind == kind]


def test_the_file_says_what_it_was_measured_on_and_is_written_as_it_is_read() -> None:
    assert PROFILE.where == "NVIDIA H200, TensorRT 8.6.0, 2026-12-01"
    assert profile_text(PROFILE) == RESULTS.read_text(encoding="utf-8")
    assert len({row.size for row in PROFILE.operators}) == len(PROFILE.operators) > 50


def gain(row: OperatorTime) -> float:
    return row.fp16 / row.int8


def test_large_convolutions_gain_and_image_convolutions_that_write_float_lose() -> None:
    large = [gain(row) for row in PROFILE.operators if row.kind == "conv" and row.kernel == 3 and row.inputs >= 128]
    assert min(large) > CLEAR
    patches = [row for row in PROFILE.operators if row.inputs == 3 and row.kernel == row.stride]
    assert len(patches) == 4
    assert max(map(gain, patches)) < 1 / 2
    (stem,) = [row for row in PROFILE.operators if row.kernel == 7 and row.rows == 32 * 112**2]
    assert gain(stem) > 2, "it writes INT8, and its MaxPool is part of the kernel"


def test_the_places_of_pairs_are_the_fastest_measured() -> None:
    for row in forms("residual"):
        assert row.forms["one"] == min(row.forms.values())
    for row in forms("pool"):
        best = min(row.forms.values())
        # quantkit puts a pair behind a MaxPool, and at both sides of an AveragePool
        assert row.forms["after" if row.word == "MaxPool" else "both"] < 1.03 * best
    for row in forms("shared"):
        assert row.forms["twice"] * 1.2 < row.forms["int8"], "a pair that convolutions share makes them float"
    for kind in ("concat", "resize"):  # the same kernels in all of these forms; the rest is noise of small ones
        assert all(row.forms["after"] < 1.1 * min(row.forms.values()) for row in forms(kind))


def test_estimates_of_what_was_left_out_name_the_faster_precision() -> None:
    """Each operator is estimated from all others, as one of a new network would be."""
    errors, right, clear = [], 0, 0
    for row in PROFILE.operators:
        found = estimate_among([other for other in PROFILE.operators if other is not row], row.size)
        if found is None:
            continue
        errors += [abs(math.log(found.fp16 / row.fp16)), abs(math.log(found.int8 / row.int8))]
        if max(gain(row), 1 / gain(row)) > CLEAR:
            clear += 1
            right += (found.fp16 > found.int8) == (row.fp16 > row.int8)
    assert len(errors) > 80
    assert statistics.median(errors) < 0.2
    assert right / clear > 0.85
    page = RESULTS.parents[2] / "docs" / "when-int8-pays.md"
    assert f"the right precision in {right} of {clear} cases" in " ".join(page.read_text(encoding="utf-8").split())


def test_quantizing_costs_a_kernel_and_then_bandwidth() -> None:
    small, large = border_costs(PROFILE.borders, 25_000)[0], border_costs(PROFILE.borders, 25_690_112)[0]
    assert 2 < small < 5
    assert large > 8 * small
