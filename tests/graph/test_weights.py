"""Weights in files beside the model: links are followed, as the caches of model hubs need it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

import quantkit
from quantkit.cli.application import run_command_line
from quantkit.errors import ModelError
from quantkit.graph import load_model
from quantkit.graph.weights import weight_values

W = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)


def write_plain(folder: Path) -> None:
    """A network `net.onnx` with its weights in `net.data`, and samples."""
    folder.mkdir(parents=True, exist_ok=True)
    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> net (float[N, 8] x) => (float[N, 4] y) { y = MatMul(x, w) }'
    )
    weight = onnx.TensorProto(name="w", data_type=1, dims=W.shape, data_location=onnx.TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="net.data")
    proto.graph.initializer.append(weight)
    (folder / "net.onnx").write_bytes(proto.SerializeToString())
    (folder / "net.data").write_bytes(W.tobytes())


def link_data(folder: Path, link: Callable[[Path, Path], None]) -> None:
    """Only the weights are a link."""
    write_plain(folder)
    (folder / "net.data").rename(folder / "blob")
    link(folder / "blob", folder / "net.data")


def link_both(folder: Path) -> None:
    """Links to files named by their digest, as a model hub's cache has them."""
    write_plain(folder / "blobs")
    snapshot = folder / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    for number, name in enumerate(("net.onnx", "net.data")):
        (folder / "blobs" / name).rename(folder / "blobs" / str(number))
        (snapshot / name).symlink_to(f"../../blobs/{number}")


def link_model(folder: Path) -> None:
    """A link to a model whose weights lie beside it, not beside the link."""
    write_plain(folder / "store")
    (folder / "net.onnx").symlink_to("store/net.onnx")


LAYOUTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "symbolic link": (lambda folder: link_data(folder, lambda a, b: b.symlink_to(a.name)), "."),
    "hard link": (lambda folder: link_data(folder, os.link), "."),
    "cache of a model hub": (link_both, "snapshots/main"),
    "link to a model": (link_model, "."),
}


VERBS = """inspect net.onnx
calibrate net.onnx --data x.npy -q
quantize net.onnx -q
quantize net.onnx --data x.npy --tensorrt-version 8.6 -o float.onnx -q
lint float.onnx --fix -o fixed.onnx
table from-qdq net.int8.onnx -o back.calib
layers net.onnx --data x.npy -q
evaluate net.onnx net.int8.onnx --data x.npy --no-labels -q
export triton net.onnx --output repository""".splitlines()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_linked_weights_work_in_every_verb(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make, place = LAYOUTS[layout]
    make(tmp_path / "linked")
    write_plain(tmp_path / "plain")
    assert load_model(tmp_path / "linked" / place / "net.onnx").sha256 == load_model(tmp_path / "plain/net.onnx").sha256
    monkeypatch.chdir(tmp_path / "linked" / place)
    x = np.random.default_rng(1).normal(size=(16, 8)).astype(np.float32)
    np.save("x.npy", x)
    for line in VERBS:
        assert run_command_line(line.split()) == 0, (line, capsys.readouterr().err)


def test_external_weights_of_another_size_are_named(tmp_path: Path) -> None:
    write_plain(tmp_path)
    (tmp_path / "net.data").write_bytes(W.tobytes() + b"more")
    model = load_model(tmp_path / "net.onnx")
    with pytest.raises(ModelError, match="weight 'w' is damaged"):
        weight_values(model.proto.graph.initializer[0], model)


@pytest.mark.parametrize("place", ["../net.data", "/tmp/net.data", "..", ""])
def test_weights_outside_the_folder_stay_refused(tmp_path: Path, place: str) -> None:
    write_plain(tmp_path)
    proto = onnx.load(tmp_path / "net.onnx", load_external_data=False)
    proto.graph.initializer[0].external_data[0].value = place
    (tmp_path / "net.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="lies outside the model's folder"):
        load_model(tmp_path / "net.onnx")


def test_public_names_read_linked_weights(tmp_path: Path) -> None:
    link_both(tmp_path)
    path = tmp_path / "snapshots" / "main" / "net.onnx"
    assert quantkit.inspect(path).sha256 == load_model(path).sha256
