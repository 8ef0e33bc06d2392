"""The figures that were measured on a GPU, replayed: what the pages claim has to be in them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "gpu_acceptance.json"
CLASSIFIERS = ("resnet20", "mobilenetv2", "vit")


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return json.loads(RESULTS.read_text(encoding="utf-8"))


def section(document: dict[str, Any], name: str) -> Any:
    if name not in document:
        pytest.skip(f"benchmarks/gpu_acceptance.py {name} has not been run on a GPU yet")
    return document[name]["figures"]


def test_every_figure_names_its_machine(document: dict[str, Any]) -> None:
    for name, part in document.items():
        assert {"gpu", "tensorrt", "date"} <= part["machine"].keys(), name


def test_the_page_shows_these_figures(document: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    from acceptance.report import rendered

    assert RESULTS.with_suffix(".md").read_text(encoding="utf-8") == rendered(document)


def test_the_calibrators_write_tensorrts_golden_tables(document: dict[str, Any]) -> None:
    tables = section(document, "distributions")["tables"]
    assert len(tables) == 8
    assert all(table["equal"] for table in tables.values())
    assert {table["get_batch_calls_when_reused"] for table in tables.values()} == {0}
    # eight batches and one, and a last call that is told that there are no more
    assert {name: t["get_batch_calls"] for name, t in tables.items()} == {n: 9 if n[0] == "A" else 2 for n in tables}


def test_streaming_is_bound_by_decoding(document: dict[str, Any]) -> None:
    figures = section(document, "streaming")
    seconds = figures["seconds"]
    on_all = seconds[f"decoding alone, {figures['cores']} threads"]
    floor = max(on_all, seconds["from pinned arrays"])
    assert figures["ratio_to_floor"] == pytest.approx(seconds["quantkit"] / floor, abs=2e-3)
    assert figures["ratio_to_floor"] <= 1.1
    assert figures["ratio_to_polygraphy"] == pytest.approx(seconds["quantkit"] / seconds["Polygraphy"], abs=2e-3)
    assert figures["ratio_to_polygraphy"] < 1.0
    assert figures["device_bytes"] == 2 * figures["input_batch_bytes"]


def test_errors_end_in_themselves_and_neighbours_live(document: dict[str, Any]) -> None:
    figures = section(document, "behaviour")
    told = {name: case["raised"].split(":")[0] for name, case in figures["failures"].items()}
    assert told == {
        "an exception": "ValueError",
        "KeyboardInterrupt": "KeyboardInterrupt",
        "a short batch in between": "DataError",
    }
    assert all(case["files_left"] == [] for case in figures["failures"].values())
    beside = figures["neighbours"]
    assert [beside["before"], beside["between"], beside["after"]] == beside["expected"]
    assert figures["memory"]["lost"] == 0
    assert figures["from_a_thread"] == "fine"
    assert "fine" not in figures["refusals"].values()


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_accuracy_of_every_precision(document: dict[str, Any], name: str) -> None:
    engines = section(document, name)["engines"]
    assert len(engines) == 6
    exact = engines["fp32"]["top1"]
    for way in ("tf32", "fp16"):
        assert abs(engines[way]["top1"] - exact) < 0.001
    assert "INT8" in engines["int8 CPU's table, no FP16"]["precisions"] or name == "vit"
    ours, theirs = engines["int8 CPU's table"], engines["int8 TensorRT's table"]
    assert abs(ours["top1"] - theirs["top1"]) < 0.002


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_cpu_calibrates_in_a_fraction_of_the_time(document: dict[str, Any], name: str) -> None:
    tables = section(document, name)["tables"]
    assert tables["onnxruntime"]["seconds"] < tables["tensorrt"]["seconds"] / 5
    assert tables["agreement"]["CPU's with TensorRT's"]["within_1e-5"] > 0.9


@pytest.mark.parametrize("name", ["resnet20", "mobilenetv2"])
def test_qdq_models_are_no_slower_than_modelopts(document: dict[str, Any], name: str) -> None:
    """Both were timed in one run; one percent is noise."""
    subjects = section(document, "explicit")[name]
    peer = subjects["modelopt entropy"]["latency_ms"]
    ours = subjects["quantkit"]["latency_ms"]
    for batch in ("32", "256"):
        assert ours[batch]["graph"] <= 1.01 * peer[batch]["graph"]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_an_engine_of_a_qdq_model_is_as_accurate_as_onnxruntime_says(document: dict[str, Any], name: str) -> None:
    figures = section(document, "explicit")[name]["quantkit"]
    assert abs(figures["top1"] - figures["top1_onnxruntime"]) <= 0.001
    assert not figures["kinds"].get("reformat")
    assert "INT8" in figures["precisions"]
    if name != "vit":  # whose blocks TensorRT compiles as one region, and does not look inside
        assert set(figures["precisions"]) == {"INT8"}


def test_scales_of_a_deconvolution_lie_along_its_output_channels(document: dict[str, Any]) -> None:
    figures = section(document, "deconvolution")["sqnr_db"]
    assert figures["axis 1"] > 100 > 20 > figures["axis 0"]


@pytest.mark.parametrize("kind", ["FP16", "Q/DQ"])
def test_a_node_in_front_of_the_weights_costs_nothing(document: dict[str, Any], kind: str) -> None:
    engines = section(document, "constants")["behind a node"]
    plain, behind = engines[f"{kind}, plain"], engines[f"{kind}, behind Identity"]
    assert behind["kernels"] == plain["kernels"]
    for batch, times in plain["latency_ms"].items():
        assert behind["latency_ms"][batch]["graph"] == pytest.approx(times["graph"], rel=0.02)


def test_tables_with_scale_0_build_engines_that_compute_in_int8(document: dict[str, Any]) -> None:
    for outcome in section(document, "constants")["scale 0"].values():
        assert outcome["zero_scales"] == ["branch", "branch.r"]
        assert set(outcome["precisions"]) == {"INT8"}
