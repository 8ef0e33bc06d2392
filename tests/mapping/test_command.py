"""`quantkit map`: the summary, the document, statistics beside the model, and options that would change nothing."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from quantkit.cli import invoke

pytestmark = pytest.mark.skipif(find_spec("fast_sugiyama") is None, reason="fast-sugiyama needs Python 3.11")


def test_the_map_of_a_quantized_model_and_its_differences(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert invoke(["calibrate", "net/model.onnx", "--data", "imgs", "--quiet"]) == 0
    assert invoke(["quantize", "net/model.onnx", "--repair", "none", "--quiet"]) == 0
    capfd.readouterr()
    assert invoke(["map", "net/model.int8.onnx"]) == 0
    shown = capfd.readouterr().out
    assert "operators  16 INT8, 13 fused, 1 float\nsource     statistics model.stats.safetensors: 60 samples" in shown
    assert (place / "net" / "model.int8.map.html").is_file()
    assert invoke(["map", "net/model.int8.onnx"]) == 1, "it is there"
    assert invoke(["map", "net/model.onnx", "--against", "net/model.int8.onnx", "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["file"] is None
    assert document["precisions"] == {"float": 43}
    kinds = [change["kind"] for change in document["difference"]["changes"]]
    assert (kinds.count("changed"), kinds.count("removed")) == (29, 13)  # BatchNormalization is folded
    estimated = {node["name"]: node["sqnr_db"] for node in document["nodes"] if node["sqnr_db"] is not None}
    assert len(estimated) > 20
    assert min(estimated.values()) > 10.0
    assert not list(place.glob("net/*.map.html"))[1:]


def test_options_that_change_nothing_and_statistics_of_others(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert invoke(["map", "net/model.onnx", "--rule", "minmax", "--json"]) == 2
    assert "--rule has no effect: there are no statistics" in capfd.readouterr().err
    assert invoke(["calibrate", "net/model.onnx", "--data", "imgs", "--quiet"]) == 0
    proto = (place / "net" / "model.onnx").read_bytes().replace(b"stem/conv", b"stem/cons")
    (place / "net" / "other.onnx").write_bytes(proto)
    shutil.copy(place / "net" / "model.stats.safetensors", place / "net" / "other.stats.safetensors")
    assert invoke(["map", "net/other.onnx", "--json"]) == 0
    found = capfd.readouterr()
    assert "other.stats.safetensors is left out: it belongs to another network" in found.err
    assert json.loads(found.out)["sources"] == []
