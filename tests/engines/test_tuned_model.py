"""The choice of a tuning, as build and bench read it from its folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import parser

from quantkit.engines.bench import bench
from quantkit.engines.build import build
from quantkit.engines.tuned_model import other_machine_warning, read_tuned
from quantkit.errors import BackendError, ModelError, StaleError, UsageError
from quantkit.graph import Model, load_model

TEXT = '<ir_version: 8, opset_import: ["": 17]> net (float[N, 3] x) => (float[N, 3] y) { y = Relu(x) }'


@pytest.fixture
def source(tmp_path: Path) -> Model:
    onnx.save(parser.parse_model(TEXT), tmp_path / "net.onnx")
    return load_model(tmp_path / "net.onnx")


def record(source: Model, folder: Path, **deploy: Any) -> Path:
    folder.mkdir(exist_ok=True)
    chosen = {"precision": "int8", "model": "net.int8.onnx", "table": None} | deploy
    document = {"format": 1, "deploy": chosen, "provenance": {"model": source.sha256, "more": [1]}}
    names = [name for name in (chosen["model"], chosen["table"]) if name]
    content = source.path.read_bytes()
    document["digests"] = {name: hashlib.sha256(content).hexdigest() for name in names}
    (folder / "tune.json").write_text(json.dumps(document))
    for name in names:
        (folder / name).write_bytes(content)
    return folder


def test_the_folder_or_its_record(source: Model, tmp_path: Path) -> None:
    folder = record(source, tmp_path / "out")
    for given in (folder, folder / "tune.json"):
        found = read_tuned(given, source)
        assert (found.model, found.precision, found.table) == (folder / "net.int8.onnx", "int8", None)


def test_a_table_goes_with_the_network_that_was_tuned(source: Model, tmp_path: Path) -> None:
    folder = record(source, tmp_path / "out", model=None, table="net.calib")
    found = read_tuned(folder, source)
    assert (found.model, found.table, found.exclude) == (source.path, folder / "net.calib", ())
    found = read_tuned(record(source, tmp_path / "out", model=None, table="net.calib", exclude=["a", "b"]), source)
    assert found.exclude == ("a", "b")


def test_what_cannot_be_built_is_refused(source: Model, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"tune\.json does not exist"):
        read_tuned(tmp_path / "none" / "tune.json", source)
    folder = record(source, tmp_path / "out")
    (folder / "net.int8.onnx").unlink()
    with pytest.raises(ModelError, match=r"names net\.int8\.onnx, which is missing"):
        read_tuned(folder, source)
    (folder / "tune.json").write_text("{}")
    with pytest.raises(ModelError, match="deploy"):
        read_tuned(folder, source)


@pytest.mark.parametrize("deploy", [{}, {"model": None, "table": "net.calib"}])
def test_a_file_that_changed_is_refused(source: Model, tmp_path: Path, deploy: dict[str, Any]) -> None:
    folder = record(source, tmp_path / "out", **deploy)
    path = folder / (deploy.get("table") or "net.int8.onnx")
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(StaleError, match=rf"{path.name} was changed after the tuning"):
        read_tuned(folder, source)
    with pytest.raises(StaleError, match="was changed after the tuning"):
        build(source.path, tuned=folder)


def test_weights_in_a_file_of_their_own_are_compared(source: Model, tmp_path: Path) -> None:
    folder = record(source, tmp_path / "out")
    (folder / "net.int8.onnx.data").write_bytes(b"weights")
    read_tuned(folder, source)
    document = json.loads((folder / "tune.json").read_text())
    document["digests"]["net.int8.onnx.data"] = hashlib.sha256(b"others").hexdigest()
    (folder / "tune.json").write_text(json.dumps(document))
    with pytest.raises(StaleError, match=r"net\.int8\.onnx\.data was changed"):
        read_tuned(folder, source)


def test_a_record_without_digests_is_refused(source: Model, tmp_path: Path) -> None:
    folder = record(source, tmp_path / "out")
    document = json.loads((folder / "tune.json").read_text())
    del document["digests"]
    (folder / "tune.json").write_text(json.dumps(document))
    with pytest.raises(ModelError, match=r"has no digest of net\.int8\.onnx"):
        read_tuned(folder, source)


@pytest.mark.parametrize("name", ["../net.onnx", "/etc/net.onnx", "sub/net.onnx", "a\\\\net.onnx", "..", ""])
def test_files_outside_the_folder_are_refused(source: Model, tmp_path: Path, name: str) -> None:
    folder = record(source, tmp_path / "out")
    document = json.loads((folder / "tune.json").read_text())
    document["deploy"]["model"] = name
    (folder / "tune.json").write_text(json.dumps(document))
    with pytest.raises(ModelError, match=r"deploy\.model"):
        read_tuned(folder, source)


def test_another_network_is_refused(source: Model, tmp_path: Path) -> None:
    folder = record(source, tmp_path / "out")
    onnx.save(parser.parse_model(TEXT.replace("Relu", "Abs")), tmp_path / "other.onnx")
    with pytest.raises(StaleError, match="was made for another network"):
        read_tuned(folder, load_model(tmp_path / "other.onnx"))


def test_a_table_beside_it_is_a_contradiction(source: Model, tmp_path: Path) -> None:
    folder = record(source, tmp_path / "out")
    with pytest.raises(UsageError, match="names its table itself"):
        build(source.path, tuned=folder, table=tmp_path / "net.calib")


def test_a_choice_by_times_of_another_machine_is_said(source: Model, tmp_path: Path) -> None:
    folder = record(source, tmp_path / "out")
    assert other_machine_warning(folder, "NVIDIA A", "8.6.0") == (), "it was not chosen by times"
    document = json.loads((folder / "tune.json").read_text())
    document["speed"] = {"machine": "NVIDIA A, TensorRT 8.6.0", "more": 1}
    (folder / "tune.json").write_text(json.dumps(document))
    assert other_machine_warning(folder, "NVIDIA A", "8.6.0") == ()
    assert other_machine_warning(None, "NVIDIA B", "10.3.0") == ()
    (text,) = other_machine_warning(folder, "NVIDIA B", "10.3.0")
    assert text.startswith("the engine was chosen by times on NVIDIA A, TensorRT 8.6.0")


def test_bench_without_a_gpu_does_not_ignore_a_tuning(
    source: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quantkit.engines.bench.explain_no_gpu", lambda _: "there is no NVIDIA driver")
    with pytest.raises(BackendError, match="that a tuning chose: there is no NVIDIA driver"):
        bench(source.path, tuned=record(source, tmp_path / "out"))
