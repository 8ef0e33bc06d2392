"""The client that comes with a repository, run as a program against Triton's gRPC service, onnxruntime behind it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from PIL import Image

from quantkit.backends.session import open_session
from quantkit.data.image_folder import list_images
from quantkit.data.pixels import decode
from quantkit.export.triton import TritonOptions, export_triton
from quantkit.graph import load_model
from quantkit.preprocess import load_preprocess, resolve_spec
from tests.support.serving import Server, listening

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "calibration_data"


def asked(client: Path, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The client as a program."""
    return subprocess.run(
        [sys.executable, "-W", "error", str(client), "--url", url, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )


def expected(model: Path, spec: str | Path, folder: Path, names: list[str]) -> list[str]:
    """What the client should print: our own pipeline's five best."""
    loaded = load_model(model)
    own = resolve_spec(load_preprocess(spec), loaded.inputs[0])
    run = open_session(loaded, loaded.outputs, threads=1).runner()
    told = []
    for name in names:
        feed = decode((folder / name).read_bytes(), own)[None]
        (scores,) = next(iter(run({loaded.inputs[0].name: feed}).values()))
        order = np.argsort(-scores.astype(np.float64), kind="stable")[:5]
        told.append(f"{name}  " + "  ".join(f"digit {i} {scores[i]:.4f}" for i in order))
    return told


def test_the_client_prints_the_best_classes_of_a_folder(tmp_path: Path) -> None:
    images = tmp_path / "images"
    (images / "deep").mkdir(parents=True)
    some = [DIGITS / "images" / name for name in list_images(DIGITS / "images").names[::29]]
    for number, path in enumerate(some):
        (images / f"{number}.png").write_bytes(path.read_bytes())
    (images / "broken.png").write_bytes(b"no image")
    sixteen = np.arange(400, dtype=np.uint16).reshape(20, 20) * 160
    Image.fromarray(sixteen).save(images / "deep" / "sixteen.png")
    (tmp_path / "names.txt").write_text("".join(f"digit {i}\n" for i in range(10)))
    options = TritonOptions(name="digits", max_batch=3)
    repo = tmp_path / "repo"
    export_triton(DIGITS / "model.onnx", repo, options=options, labels=tmp_path / "names.txt")
    server = Server(repo)
    with listening(server) as url:
        done = asked(repo / "digits_ensemble" / "client.py", url, str(images))
    assert done.returncode == 0, done.stderr
    assert done.stderr == "broken.png: cannot identify image file\n"
    names = [f"{n}.png" for n in range(len(some))] + ["deep/sixteen.png"]
    assert sorted(done.stdout.splitlines()) == sorted(
        expected(DIGITS / "model.onnx", DIGITS / "preprocess.toml", images, names)
    )
    to_ensemble = [size for model, size in server.asked if model == "digits_ensemble"]
    assert (sum(to_ensemble), max(to_ensemble)) == (len(some), 3)
    # what has 16 bits went past the ensemble
    assert server.asked[-1] == ("digits", 1) or ("digits", 1) in server.asked


def test_a_fixed_batch_is_filled(tmp_path: Path) -> None:
    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> net (float[4, 3, 8, 8] x) => (float[4, 2] y, float[4, 3, 1, 1] p)'
        "{ p = GlobalAveragePool(x) f = Flatten(p) y = Gemm(f, w) }"
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.ones((3, 2), np.float32), "w"))
    onnx.save(proto, tmp_path / "net.onnx")
    (tmp_path / "images").mkdir()
    for number in range(6):
        Image.new("RGB", (9, 7), (number * 40, 10, 20)).save(tmp_path / "images" / f"{number}.png")
    export_triton(tmp_path / "net.onnx", tmp_path / "repo", preprocess="unit")
    server = Server(tmp_path / "repo")
    with listening(server) as url:
        client = tmp_path / "repo/net_ensemble/client.py"
        done = asked(client, url, str(tmp_path / "images"), "--batch", "1")
        whole = asked(client, url, str(tmp_path / "images"), "--output", "p")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split("  ")[0] for line in done.stdout.splitlines()] == [f"{n}.png" for n in range(6)]
    assert {size for _, size in server.asked} == {4}
    value = np.float32((5 * 40 + 10 + 20) / 255)
    assert done.stdout.splitlines()[5].startswith(f"5.png  0 {value:.4f}  1 {value:.4f}")
    assert "5.png  array of shape (3, 1, 1)\n" in whole.stdout


def test_an_empty_folder_is_reported(tmp_path: Path) -> None:
    export_triton(DIGITS / "model.onnx", tmp_path / "repo", options=TritonOptions(name="digits"))
    (tmp_path / "images").mkdir()
    done = asked(tmp_path / "repo/digits_ensemble/client.py", "localhost:1", str(tmp_path / "images"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("images: no images\n")


@pytest.mark.parametrize("name", ["a", "net-1.x"])
def test_the_client_is_formatted_python(tmp_path: Path, name: str) -> None:
    export_triton(DIGITS / "model.onnx", tmp_path, options=TritonOptions(name=name))
    text = (tmp_path / f"{name}_ensemble" / "client.py").read_text()
    compile(text, "client.py", "exec")
    assert "@" not in text.replace("@dataclass", "")
