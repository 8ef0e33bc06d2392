"""Triton Inference Server itself loads what the export writes, and serves our pipeline's bits.

    pip install --no-deps --target DIR nvidia-pytriton 'numpy<2'
    QUANTKIT_TRITON=DIR pytest tests/export/test_server.py

nvidia-pytriton brings the server without its onnxruntime backend; a Python backend of that name stands in, so that the
repository is served as it was written: configurations, ensemble, batches, warm-up, labels. Its stub wants numpy 1.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from quantkit.backends.session import open_session
from quantkit.data.image_folder import list_images
from quantkit.data.pixels import decode, pixels_of
from quantkit.export.triton import TritonOptions, export_triton
from quantkit.graph import load_model
from quantkit.preprocess import Preprocess, load_preprocess, resolve_spec

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "calibration_data"
STAND_IN = """
import json, os, sys
sys.path[:] = [{triton!r}, *sys.path, {site!r}]
import numpy, onnxruntime
import triton_python_backend_utils as triton

class TritonPythonModel:
    def initialize(self, args):
        self.config = json.loads(args["model_config"])
        path = os.path.join(args["model_repository"], args["model_version"], "model.onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        inputs, outputs = ([p["name"] for p in self.config[side]] for side in ("input", "output"))
        answers = []
        for request in requests:
            feeds = {{n: triton.get_input_tensor_by_name(request, n).as_numpy() for n in inputs}}
            made = self.session.run(outputs, feeds)
            answers.append(triton.InferenceResponse([triton.Tensor(n, v) for n, v in zip(outputs, made)]))
        return answers
"""


@pytest.fixture
def triton() -> Path:
    """The folder with nvidia-pytriton."""
    if "QUANTKIT_TRITON" not in os.environ:
        pytest.skip("no Triton Inference Server: set QUANTKIT_TRITON")
    return Path(os.environ["QUANTKIT_TRITON"]).absolute()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(triton: Path, repository: Path, work: Path) -> Iterator[tuple[Any, str]]:
    """A client, and the address, of a server that is ready."""
    from tritonclient import grpc

    server, backends = triton / "pytriton" / "tritonserver", work / "backends"
    shutil.copytree(server / "backends", backends)
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    shutil.copy(server / "python_backend_stubs" / version / "triton_python_backend_stub", backends / "python")
    (backends / "onnxruntime").mkdir()
    (backends / "onnxruntime" / "model.py").write_text(
        STAND_IN.format(triton=str(triton), site=sysconfig.get_path("purelib"))
    )
    for program in (server / "bin" / "tritonserver", backends / "python" / "triton_python_backend_stub"):
        program.chmod(0o755)
    libraries = f"{triton / 'nvidia_pytriton.libs'}:{sysconfig.get_config_var('LIBDIR')}"
    ports = {kind: free_port() for kind in ("http", "grpc", "metrics")}
    with open(work / "log", "w") as log:
        process = subprocess.Popen(
            [
                server / "bin" / "tritonserver",
                f"--model-repository={repository}",
                f"--backend-directory={backends}",
                *(f"--{kind}-port={port}" for kind, port in ports.items()),
            ],
            env={**os.environ, "LD_LIBRARY_PATH": libraries},
            stdout=log,
            stderr=log,
        )
    url = f"127.0.0.1:{ports['grpc']}"
    client = grpc.InferenceServerClient(url)
    try:
        end = time.monotonic() + 60
        while not ready(client):
            running = process.poll() is None and time.monotonic() < end
            assert running, (work / "log").read_text()[-3000:]
            time.sleep(0.2)
        yield client, url
    finally:
        client.close()
        process.terminate()
        process.wait(60)


def ready(client: Any) -> bool:
    from tritonclient.utils import InferenceServerException

    try:
        return bool(client.is_server_ready())
    except InferenceServerException:
        return False


def pixels(grpc: Any, name: str, array: Any) -> Any:
    value = grpc.InferInput(name, list(array.shape), "UINT8")
    value.set_data_from_numpy(array)
    return value


@pytest.mark.slow
def test_the_server_loads_it_and_gives_the_bits_of_our_pipeline(triton: Path, tmp_path: Path) -> None:
    from tritonclient import grpc

    repository, model = tmp_path / "repository", DIGITS / "model.onnx"
    (tmp_path / "names.txt").write_text("".join(f"digit {i}\n" for i in range(10)))
    for version in (1, 2):
        options = TritonOptions(name="digits", version=version)
        export_triton(model, repository, options=options, labels=tmp_path / "names.txt")
    for name, batch in (("fixed", "2"), ("dynamic", "N")):
        proto = parser.parse_model(
            f'<ir_version: 8, opset_import: ["": 17]> net (float[{batch}, 3, H, W] x) '
            f"=> (float[{batch}, 4] y, float[{batch}] s)"
            "{ p = GlobalAveragePool(x) f = Flatten(p) y = Gemm(f, w) s = ReduceMean<axes=[1], keepdims=0>(y) }"
        )
        proto.graph.initializer.append(numpy_helper.from_array(np.eye(3, 4, dtype=np.float32), "w"))
        onnx.save(proto, tmp_path / f"{name}.onnx")
        sized = Preprocess(size=(8, 8), scale=1 / 255)
        export_triton(tmp_path / f"{name}.onnx", repository, preprocess=sized)

    loaded = load_model(model)
    spec = resolve_spec(load_preprocess(DIGITS / "preprocess.toml"), loaded.inputs[0])
    contents = [(DIGITS / "test" / name).read_bytes() for name in list_images(DIGITS / "test").names]
    run = open_session(loaded, loaded.outputs, threads=1).runner()
    with serving(triton, repository, tmp_path) as (client, url):
        for name in ("digits", "digits_preprocess", "digits_ensemble"):
            assert client.is_model_ready(name, "2")
            assert not client.is_model_ready(name, "1")
        for start in range(0, len(contents), 8):
            some = contents[start : start + 8]
            feed = pixels(grpc, "pixels", np.stack([pixels_of(content, spec) for content in some]))
            ours = client.infer("digits_ensemble", [feed]).as_numpy("logits")
            expected = run({"image": np.stack([decode(content, spec) for content in some])})["logits"]
            assert ours.tobytes() == expected.tobytes()
        asked = [grpc.InferRequestedOutput("logits", class_count=1)]
        (top,) = client.infer("digits_ensemble", [feed], outputs=asked).as_numpy("logits")[0]
        assert top.decode().endswith(f":digit {expected[0].argmax()}")
        ones = pixels(grpc, "pixels", np.full((2, 8, 8, 3), 255, np.uint8))
        for name, shape in (("fixed", (2,)), ("dynamic", (2, 1))):
            found = client.infer(f"{name}_ensemble", [ones])
            assert found.as_numpy("y").tolist() == [[1, 1, 1, 0]] * 2
            assert found.as_numpy("s").shape == shape
            assert (found.as_numpy("s") == 0.75).all()
        command = [sys.executable, repository / "digits_ensemble" / "client.py", "--url", url, DIGITS / "test"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = [line.split("  ") for line in done.stdout.splitlines()]
    assert len(told) == len(contents)
    right = sum(name.split("/")[0] == best.split(" ")[1] for name, best, *_ in told)
    assert right > 0.9 * len(told)
