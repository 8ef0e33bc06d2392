"""The verb compile: NVIDIA's compiler on the bundled network, and what is written, refused and left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import quantkit
from quantkit.backends.tensorrt_rtx.compiling import compiler_version
from quantkit.backends.tensorrt_rtx.record import read_compiled_record
from quantkit.compiling.counterparts import FLOAT_NETWORK, FLOAT_PART, fp16_counterparts
from quantkit.compiling.result import CAVEAT, compiled_document
from quantkit.compiling.roofline import WARNING
from quantkit.errors import BackendError, OutputError, StaleError, UsageError
from quantkit.graph import load_model
from quantkit.qdq.reader import has_qdq
from tests.support.networks import BUNDLED, Command, network

needs_compiler = pytest.mark.skipif(compiler_version() is None, reason="needs the extra rtx")
SM86 = {"architectures": "sm86"}


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled network as a Q/DQ model, and as one whose float part is FP16."""
    folder = tmp_path_factory.mktemp("compile")
    shutil.copy(BUNDLED / "model.onnx", folder / "m.onnx")
    made = quantkit.calibrate(folder / "m.onnx", BUNDLED / "images", limit=16, preprocess=BUNDLED / "preprocess.toml")
    statistics = made.statistics
    for name, fp16 in (("q.onnx", False), ("h.onnx", True)):
        quantkit.quantize(folder / "m.onnx", folder / name, statistics=statistics, fp16=fp16)
    return folder


@needs_compiler
def test_a_qdq_model_is_compared_with_fp16_in_both_ways(quantized: Path) -> None:
    made = quantkit.compile(quantized / "q.onnx", gpus=("a40", "h200"), **SM86)
    assert [variant.kind for variant in made.variants] == ["model", "float part in FP16", "float network in FP16"]
    model, part, half = (variant.networks[0] for variant in made.variants)
    assert model.int8_share == part.int8_share == 1
    assert half.int8_share == 0
    assert {tensor.type for kernel in half.products for tensor in kernel.reads} == {"FP16"}
    assert all(found.milliseconds > 0 for variant in made.variants for found in variant.estimates)
    assert [row[0] for row in made.estimate_rows()][::3] == ["A40", "H200, by sm89"]
    assert any("strongly typed" in text for text in made.notes)
    assert CAVEAT in str(made)
    assert WARNING in str(made)


def test_what_is_compared_follows_the_model(quantized: Path, tmp_path: Path) -> None:
    expected = {
        "m.onnx": [FLOAT_NETWORK],
        "q.onnx": [FLOAT_PART, FLOAT_NETWORK],
        "h.onnx": [FLOAT_NETWORK],
    }
    for name, kinds in expected.items():
        found = list(fp16_counterparts(load_model(quantized / name), tmp_path))
        assert [counterpart.kind for counterpart in found] == kinds
        assert not any(has_qdq(c.model) for c in found if c.model and c.kind == FLOAT_NETWORK)
    half = next(fp16_counterparts(load_model(quantized / "m.onnx"), tmp_path)).model
    assert half is not None
    assert list(fp16_counterparts(half, tmp_path / "none")) == []


@needs_compiler
def test_a_model_in_memory_compiles_as_its_file(quantized: Path) -> None:
    alone = quantkit.compile(quantized / "q.onnx", against=quantized / "m.onnx", **SM86)
    assert [variant.name for variant in alone.variants] == ["q.onnx", "m.onnx"]
    proto = onnx.load(quantized / "q.onnx")
    assert quantkit.compile(proto, compare=False, **SM86).networks[0].kernels == alone.networks[0].kernels


@needs_compiler
def test_engines_and_record_are_written_together(quantized: Path, tmp_path: Path) -> None:
    made = quantkit.compile(
        quantized / "q.onnx", architectures=("sm86", "sm89"), compare=False, batch=2,
        save=tmp_path / "e.engine", record=tmp_path / "e.compiled.json",
    )  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == {"e.sm86.engine", "e.sm89.engine", "e.compiled.json"}
    record = read_compiled_record(tmp_path / "e.compiled.json")
    assert record.networks == made.networks
    assert [len((tmp_path / engine.file).read_bytes()) for engine in record.engines] == [
        network.engine_bytes for network in made.networks
    ]
    assert record.networks[0].shapes == {"image": (2, 1, 16, 16)} == dict(made.shapes)
    with pytest.raises(StaleError, match="already exists"):
        quantkit.compile(quantized / "q.onnx", save=tmp_path / "e.sm86.engine", **SM86)
    again = quantkit.compile(quantized / "q.onnx", compare=False, record=tmp_path / "e.compiled.json", **SM86)
    assert read_compiled_record(tmp_path / "e.compiled.json").networks == again.networks
    document = compiled_document(again)
    assert json.loads(json.dumps(document)) == document
    assert len(document["variants"][0]["networks"][0]["kernel_list"]) == len(again.networks[0].running)


def shifted(path: Path) -> Path:
    """A Q/DQ model with a zero point of 3, which the compiler refuses."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "quantize"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], "dequantize"),
        helper.make_node("Relu", ["d"], ["y"], "relu"),
    ]
    weights = {"s": np.float32(0.1), "z": np.int8(3)}
    onnx.save(network(nodes, {"x": ["N", 3, 8, 8]}, ["y"], weights), path)
    return path


@needs_compiler
def test_a_refusal_names_node_and_remedy_and_writes_nothing(tmp_path: Path, quantkit_command: Command) -> None:
    shifted(tmp_path / "z.onnx")
    done = quantkit_command(
        "compile",
        "z.onnx",
        "--for",
        "sm86",
        "--save",
        "z.engine",
        "--record",
        "z.compiled.json",
        code=1,
        folder=tmp_path,
    )
    assert "refused for sm86: " in done.stdout
    assert "a zero point other than 0" in done.stdout
    assert "TensorRT-RTX: " in done.stdout
    assert "nothing was written, since the model is refused for sm86" in done.stdout
    assert "\n  → " in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["z.onnx"]
    loud = quantkit_command("compile", "z.onnx", "--for", "sm86", "--json", code=1, folder=tmp_path)
    (refusal, *_) = json.loads(loud.stdout)["refusals"]
    assert refusal["problem"] == "a zero point other than 0"
    assert "ero point" in refusal["text"]
    assert "refused for sm86" in loud.stderr


@needs_compiler
def test_a_summary_for_people(quantized: Path, quantkit_command: Command) -> None:
    done = quantkit_command(
        "compile", quantized / "q.onnx", "--for", "sm86", "--no-compare", "--save", quantized / "s.engine"
    )
    assert "INT8      " in done.stdout
    assert "values go INT8 → float → INT8" in done.stdout
    assert "for PCs with sm86 GPUs" in done.stdout
    assert "an estimate from published peaks and bandwidth" in done.stdout
    assert done.stderr == ""


def test_without_the_extra_one_line_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantkit.backends.tensorrt_rtx.compiling.find_spec", lambda _: None)
    with pytest.raises(BackendError, match="not installed") as error:
        quantkit.compile(BUNDLED / "model.onnx")
    assert "tensorrt-rtx-cu13" in error.value.remedy


@needs_compiler
def test_senseless_requests_are_refused_before_the_work(tmp_path: Path) -> None:
    model = BUNDLED / "model.onnx"
    with pytest.raises(UsageError, match="engine and record"):
        quantkit.compile(model, save=tmp_path / "x", record=tmp_path / "x", **SM86)
    with pytest.raises(UsageError, match="no input is left"):
        quantkit.compile(model, shapes="image=2", batch=4)
    with pytest.raises(OutputError, match="nowhere"):
        quantkit.compile(model, save=tmp_path / "nowhere" / "x.engine")
    with pytest.raises(UsageError, match="not of an engine"):
        quantkit.compile(model, save=model, force=True, **SM86)
    with pytest.raises(UsageError, match="own source"):
        quantkit.compile(model, record=model, force=True, **SM86)
    with pytest.raises(UsageError, match="1 MiB are not enough"):
        quantkit.compile(model, memory=1 << 20)
    for wrong in ({"batch": 0}, {"seconds": 0}, {"memory": 1}, {"architectures": "sm90"}, {"gpus": "orin"}):
        with pytest.raises(UsageError):
            quantkit.compile(model, **wrong)
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_the_compiler_and_leaves_nothing(tmp_path: Path) -> None:
    """With a stand-in for the compiler that never ends, and says by a file that it has begun."""
    (tmp_path / "lib").mkdir()
    begun, temporary = tmp_path / "begun", tmp_path / "temporary"
    temporary.mkdir()
    (tmp_path / "lib" / "tensorrt_rtx.py").write_text(
        f"import os, time\nopen({str(begun)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)\n"
    )
    program = (
        "import quantkit.backends.tensorrt_rtx.compiling as c\nc.compiler_version = lambda: '1.7'\n"
        "import quantkit.cli, sys\nsys.argv[0] = 'quantkit'\nquantkit.cli.main()"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", program, "compile", str(BUNDLED / "model.onnx"), "--save", "x.engine"],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(tmp_path / "lib"), os.environ["PYTHONPATH"]]),
            "TMPDIR": str(temporary),
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (begun.exists() and begun.read_text()):
        assert running.poll() is None, running.communicate()
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert (running.returncode, said.strip()) == (130, "quantkit: interrupted")
    with pytest.raises(ProcessLookupError):
        os.kill(int(begun.read_text()), 0)
    assert list(temporary.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"lib", "begun", "temporary"}
