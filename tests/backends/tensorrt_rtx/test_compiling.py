"""Compilation in a process of its own, with NVIDIA's compiler where the extra `rtx` is installed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import onnx.parser
import pytest

from quantkit.backends.tensorrt_rtx.architectures import parse_architectures
from quantkit.backends.tensorrt_rtx.compiling import CompileLimits, compiler_version, try_compile
from quantkit.backends.tensorrt_rtx.refusals import refusal_of
from quantkit.errors import BackendError, UsageError
from quantkit.graph.load import load_model

BUNDLED = Path(__file__).parents[3] / "calibration_data" / "model.onnx"
needs_compiler = pytest.mark.skipif(compiler_version() is None, reason="needs the extra rtx")


def shapes_of(path: Path) -> dict[str, tuple[int, ...]]:
    return {i.name: tuple(d if isinstance(d, int) else 2 for d in i.shape) for i in load_model(path).inputs}


@needs_compiler
def test_a_float_network_compiles_for_two_architectures_without_int8() -> None:
    made = try_compile(load_model(BUNDLED), shapes_of(BUNDLED), architectures=["sm86", "sm120"], keep_engines=True)
    assert [network.architecture for network in made.networks] == ["sm86", "sm120"]
    for network in made.networks:
        assert network.products
        assert network.int8_share == 0
        assert len(made.engines[network.architecture]) == network.engine_bytes
        assert {node.name for node in load_model(BUNDLED).proto.graph.node if node.op_type == "Conv"} <= set(
            network.by_node
        )


@needs_compiler
def test_a_compiler_out_of_memory_says_which_limit() -> None:
    with pytest.raises(BackendError, match=r"more than the 0\.25 GiB"):
        try_compile(load_model(BUNDLED), shapes_of(BUNDLED), limits=CompileLimits(memory=1 << 28))


def test_a_compiler_that_does_not_end_is_stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tensorrt_rtx.py").write_text("import time\ntime.sleep(1000)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackendError, match=r"more than 0\.3 s, loading TensorRT-RTX"):
        try_compile(load_model(BUNDLED), shapes_of(BUNDLED), limits=CompileLimits(seconds=0.3))


def test_a_crash_of_the_compiler_is_a_refusal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "tensorrt_rtx.py"
    package.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.syspath_prepend(tmp_path)
    made = try_compile(load_model(BUNDLED), shapes_of(BUNDLED))
    assert [refusal.problem for refusal in made.refusals] == ["the compiler crashed (SIGSEGV) loading TensorRT-RTX"]


def test_without_the_extra_one_line_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantkit.backends.tensorrt_rtx.compiling.find_spec", lambda _: None)
    with pytest.raises(BackendError, match="not installed") as error:
        try_compile(load_model(BUNDLED), shapes_of(BUNDLED))
    assert "tensorrt-rtx-cu13" in error.value.remedy


def test_architectures_are_named_as_nvidia_names_them() -> None:
    assert parse_architectures("8.6, sm120,SM86") == ("sm86", "sm120")
    for wrong in ("sm90", "x", "", ","):
        with pytest.raises(UsageError):
            parse_architectures(wrong)


def test_a_compiler_that_computes_nothing_any_more_is_stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tensorrt_rtx.py").write_text("import time\ntime.sleep(1000)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("quantkit.backends.tensorrt_rtx.compiling.STALLED", 0.3)
    with pytest.raises(BackendError, match="stands still, loading TensorRT-RTX"):
        try_compile(load_model(BUNDLED), shapes_of(BUNDLED))


@pytest.mark.skipif(sys.platform != "linux", reason="the system ends the compiler on Linux alone")
def test_the_compiler_ends_with_its_parent(tmp_path: Path) -> None:
    (tmp_path / "tensorrt_rtx.py").write_text(
        "import os, time\nopen('compiler.pid', 'w').write(str(os.getpid()))\ntime.sleep(1000)\n"
    )
    program = (
        "from quantkit.backends.tensorrt_rtx.compiling import try_compile\nfrom quantkit.graph.load import load_model\n"
        f"try_compile(load_model({str(BUNDLED)!r}), {shapes_of(BUNDLED)!r})\n"
    )
    paths = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    environment = {**os.environ, "PYTHONPATH": paths, "TMPDIR": str(tmp_path)}
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, env=environment)
    try:
        compiler = int(wait_until(lambda: (tmp_path / "compiler.pid").read_text()))
    finally:
        parent.kill()
        parent.wait()
    assert wait_until(lambda: "" if is_running(compiler) else "ended")


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(text: Callable[[], str]) -> str:
    for _ in range(600):
        with suppress(FileNotFoundError):
            if found := text():
                return found
        time.sleep(0.05)
    raise AssertionError("nothing happened within 30 s")


def test_a_full_disk_is_named_as_such(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tensorrt_rtx.py").write_text("import errno\nraise OSError(errno.ENOSPC, 'No space left on device')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackendError, match="has no space") as error:
        try_compile(load_model(BUNDLED), shapes_of(BUNDLED))
    assert "TMPDIR" in error.value.remedy


@needs_compiler
def test_a_node_in_a_subgraph_is_not_taken_for_one_of_the_network() -> None:
    branches = (
        "<then_branch = a () => (float[2] p) { p = Relu(h) }, else_branch = b () => (float[2] q) { q = mine.Foo(h) }>"
    )
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17, "mine": 1]> net (bool c, float[2] x) => (float[2] y)'
        f"{{ h = Abs(x) y = If(c) {branches} }}"
    )
    made = try_compile(load_model(proto), {"c": (), "x": (2,)})
    assert [(refusal.operator, refusal.node) for refusal in made.refusals] == [("Foo", "")]


@needs_compiler
def test_a_name_that_the_log_cannot_hold_is_named() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> net (float[2, 3] x) => (float[2, 3] y) { y = Exp(x) }'
    )
    proto.graph.input[0].name = proto.graph.node[0].input[0] = "the\nimage"
    with pytest.raises(BackendError, match="line break"):
        try_compile(load_model(proto), {"the\nimage": (2, 3)}, architectures=["sm86"])


def test_a_layer_in_the_text_of_an_error_is_looked_up() -> None:
    nodes = {"y": "detect", "z": "z"}
    for text, node in (
        ("Error Code 4 (IGatherLayer detect: cannot gather)", "detect"),
        ("(Assertion !layerImpls.empty() failed. node_of_y_0 has no runners that implement it In f)", "detect"),
        ("(IGatherLayer other: cannot gather)", ""),
        ("nothing", ""),
    ):
        assert refusal_of({"node": "", "operator": "", "text": text}, "sm86", nodes).node == node
