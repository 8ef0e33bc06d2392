"""The rules of lint beside NVIDIA's compiler: what both refuse, and where they differ.

`pytest --regen tests/linting/test_compiler.py` writes what the compiler says into benchmarks/results/compiler.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from quantkit.backends.tensorrt_rtx.compiling import compiler_version
from quantkit.errors import BackendError, ModelError, UsageError
from quantkit.graph import Model, load_model
from quantkit.linting.compiler import CompileRequest, CompilerReport, compare_with_compiler
from quantkit.linting.lint import lint
from quantkit.linting.registry import lint_model
from tests.linting.test_rules import (
    CLEAN,
    FIXES,
    FLOAT,
    IMAGE,
    MOVED,
    MOVING,
    PAIR,
    PARAMETERS,
    SAME,
    SQUARE,
    STRUCTURES,
    WEIGHT,
    network,
)  # fmt: skip
from tests.support.networks import ROOT, Command

RESULTS = ROOT / "benchmarks" / "results" / "compiler.json"
SAID: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
needs_compiler = pytest.mark.skipif(compiler_version() is None, reason="needs the extra rtx")
ONE = CompileRequest(("sm86",))

NETWORKS: dict[str, Model] = {
    "clean": network(f"{IMAGE} {{ {CLEAN} }}"),
    **{name: network(f"{IMAGE} {{ {CLEAN} }}", 21 if name == "16 bits" else 17, **weights)
       for name, (_, _, _, weights) in PARAMETERS.items()},
    **{name: network(text, v=FLOAT, p=FLOAT[:3, :, :1, :1], m=SQUARE[:, :, 0, 0])
       for name, (_, text, _) in STRUCTURES.items()},
    **{name: network(text, **weights) for name, (_, text, weights) in FIXES.items()},
    **{f"{name} before a layer": network(
        f"(float[2, 3, 8, 8] x) => (float[A, B, C, D] y) {{ {PAIR} {moved} {WEIGHT} y = Conv(m, k) }}", **MOVING
    ) for name, moved in MOVED.items()},
    "scale as input": network(f"(float[N, 3, 8, 8] x, float s) => (float[N, 4, 6, 6] y) {{ {CLEAN} }}"),
    "opset 12": network(f"{IMAGE} {{ {PAIR} k = DequantizeLinear(w, s, z) y = Conv(d, k) }}", 12),
    "custom operator": network(f"{IMAGE} {{ {PAIR} {WEIGHT} c = Conv(d, k) y = mine.Foo(c) }}", domain="mine"),
    "onnxruntime's pair": network(
        f"{SAME} {{ q = com.microsoft.QuantizeLinear(x, s, z) y = com.microsoft.DequantizeLinear(q, s, z) }}",
        domain="com.microsoft",
    ),
    "ConvTranspose": network(f"{SAME} {{ {PAIR} k = DequantizeLinear<axis = 1>(u, r, i) y = ConvTranspose(d, k) }}"),
}  # fmt: skip

ACCEPTED = {
    "activation-per-channel": "it dequantizes the activation and computes in float",
    "clip-apart": "it clips the values, as the file says; TensorRT 8.6 does not",
    "contrib-pair": "its parser ignores the domain",
    "lone-dequantize": "it computes in float",
    "lone-quantize": "it computes in float",
    "scale-value": "an infinite scale compiles; a scale of 0 on a channel of zeros as well",
    "uint8": "uint8 with zero point 0 compiles",
    "weight-axis": "it dequantizes the weight and computes in float",
    "zero-point-type": "a zero point that is missing or of another type is taken as 0",
}
"""Rules that find errors which the compiler does not mind, and what it does instead."""
REFUSED_ALONE = {"custom operator"}
"""Networks that no rule is about, but the compiler refuses."""


def report_on(name: str, folder: Path) -> tuple[CompilerReport, list[str]]:
    """The compiler's report on a network, and the rules that find an error in it."""
    path = folder / "net.onnx"
    onnx.save(NETWORKS[name].proto, path)
    model = load_model(path)
    found = lint_model(model)
    return compare_with_compiler(model, found, ONE), sorted({f.rule for f in found if f.severity == "error"})


def summary(report: CompilerReport, errors: list[str]) -> dict[str, Any]:
    products = [list(kernel.operands) for made in report.networks for kernel in made.products]
    return {
        "errors": errors,
        "refuses": [f"{r.operator} {r.node}: {r.problem}".strip() for r in report.refusals],
        "multiplies": products,
        "findings": [f"{f.rule}: {f.where}" for f in report.findings],
    }


@needs_compiler
@pytest.mark.parametrize("name", NETWORKS)
def test_what_the_compiler_says_is_on_record(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    now = summary(*report_on(name, tmp_path))
    if request.config.getoption("--regen"):
        SAID["networks"][name] = now
        SAID["version"] = compiler_version()
        RESULTS.write_text(f"{json.dumps(SAID, indent=1, ensure_ascii=False)}\n", encoding="utf-8")
    if SAID["version"] == compiler_version():
        assert now == SAID["networks"][name], "run `pytest --regen` and read the diff"


def test_every_network_is_on_record() -> None:
    assert SAID["networks"].keys() == NETWORKS.keys()


@pytest.mark.parametrize("name", NETWORKS)
def test_rules_and_compiler_agree_or_the_difference_is_known(name: str) -> None:
    said = SAID["networks"][name]
    if said["refuses"]:
        assert said["errors"] or name in REFUSED_ALONE
        assert any(text.startswith("compiler-refuses") for text in said["findings"]) == (name in REFUSED_ALONE)
    else:
        assert set(said["errors"]) <= set(ACCEPTED)
        assert len([text for text in said["findings"] if text.startswith("compiler-accepts")]) == len(said["errors"])


def test_every_known_difference_was_seen() -> None:
    built = [said for said in SAID["networks"].values() if not said["refuses"]]
    assert {rule for said in built for rule in said["errors"]} == set(ACCEPTED)


def test_no_broken_network_reaches_a_kernel_in_int8_that_a_rule_calls_float() -> None:
    for name, said in SAID["networks"].items():
        if any(text.startswith("float-kernel") for text in said["findings"]):
            assert said["multiplies"] != [["INT8", "INT8"]], name


@needs_compiler
def test_what_is_said_of_the_clean_network_and_of_one_in_float(tmp_path: Path) -> None:
    report, _ = report_on("clean", tmp_path)
    assert report.findings == ()
    assert report.lines == (
        f"TensorRT-RTX {report.version} compiles it for sm86: 1 of 1 kernels that multiply are INT8, "
        f"{report.networks[0].seconds:.1f} s",
    )
    report, _ = report_on("ConvTranspose", tmp_path)
    (finding,) = report.findings
    assert (finding.rule, finding.severity, finding.where) == ("float-kernel", "slow", "y")
    assert "multiplies FP32 by FP32 (sm86)" in finding.problem


@needs_compiler
def test_a_refusal_that_no_rule_explains_is_an_error_at_its_node(tmp_path: Path) -> None:
    report, _ = report_on("custom operator", tmp_path)
    (finding,) = report.findings
    assert (finding.rule, finding.severity, finding.where) == ("compiler-refuses", "error", "y")
    assert "an operator that TensorRT does not have" in finding.problem
    assert "Plugin not found" in finding.problem


@needs_compiler
def test_a_float_network_is_compiled_although_nothing_in_it_is_quantized() -> None:
    report = lint(ROOT / "calibration_data" / "model.onnx", compile_for=ONE)
    assert report.findings == ()
    assert report.compiler is not None
    assert report.compiler.networks[0].int8_share == 0
    with pytest.raises(ModelError, match="nothing in it is quantized"):
        lint(ROOT / "calibration_data" / "model.onnx")


@needs_compiler
def test_the_command_prints_and_returns_what_the_compiler_says(place: Path, quantkit_command: Command) -> None:
    onnx.save(NETWORKS["custom operator"].proto, place / "odd.onnx")
    done = quantkit_command("lint", "odd.onnx", "--compile", "--for", "8.6", code=1)
    assert "y: TensorRT-RTX" in done.stdout
    assert "refuses it for sm86" in done.stdout
    document = json.loads(quantkit_command("lint", "odd.onnx", "--compile", "--for", "sm86", "--json", code=1).stdout)
    assert [finding["rule"] for finding in document["findings"]] == ["compiler-refuses"]
    assert document["compiler"]["refused"][0]["operator"] == "Foo"
    assert "add --compile" in quantkit_command("lint", "odd.onnx", "--for", "sm86", code=2).stderr
    assert "sm89 is the nearest" in quantkit_command("lint", "odd.onnx", "--compile", "--for", "sm90", code=2).stderr


def test_without_the_extra_one_line_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantkit.backends.tensorrt_rtx.compiling.find_spec", lambda _: None)
    with pytest.raises(BackendError, match="TensorRT-RTX, which compiles, is not installed"):
        lint(ROOT / "calibration_data" / "model.onnx", compile_for=ONE)


@pytest.mark.parametrize("asked", [ONE, CompileRequest(("sm90",)), CompileRequest(("sm86",), ("other=1",))])
def test_no_copy_is_written_that_cannot_be_compiled(
    asked: CompileRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if asked is ONE:
        monkeypatch.setattr("quantkit.backends.tensorrt_rtx.compiling.find_spec", lambda _: None)
    elif compiler_version() is None:
        pytest.skip("needs the extra rtx")
    onnx.save(NETWORKS[next(iter(FIXES))].proto, tmp_path / "net.onnx")
    with pytest.raises((BackendError, UsageError)):
        lint(tmp_path / "net.onnx", fix_to=tmp_path / "fixed.onnx", compile_for=asked)
    assert not (tmp_path / "fixed.onnx").exists()
