"""The command `quantkit lint`."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantkit.cli import options
from quantkit.cli.arguments.verb import verb
from quantkit.cli.terminal.console import Printing, print_line
from quantkit.errors import UsageError
from quantkit.paths import beside

if TYPE_CHECKING:
    from quantkit.linting.compiler import CompileRequest, CompilerReport
    from quantkit.linting.finding import Finding
    from quantkit.linting.lint import LintReport

SHOWN = 10
HEADINGS = {
    "error": "errors: TensorRT rejects this, or computes something else",
    "slow": "slow: it runs, but not as fast as it could",
    "accuracy": "accuracy: it runs, but may be less accurate than it could be",
    "disputed": "disputed: quantkit's rules and NVIDIA's compiler do not agree",
}
"""Severity → the line above its findings."""


@verb(
    "Find what TensorRT rejects or runs slowly; fix it",
    "quantkit lint model.int8.onnx",
    "quantkit lint model.int8.onnx --fix -o fixed.onnx",
)
@click.argument("model", metavar="MODEL", type=options.PATH)
@click.option("--fix", is_flag=True, help="Write a copy with everything fixed that can be fixed exactly.")
@click.option(
    "--output",
    "-o",
    metavar="PATH",
    type=options.PATH,
    help="Fixed copy to write. Default: MODEL.fixed.onnx beside the model.",
)
@click.option(
    "--compile", "compiles", is_flag=True, help="Compile with TensorRT-RTX on the CPU. Its findings join the others."
)
@options.architectures
@options.shapes("a batch of 1, and the size of a usual image or text")
@options.force
@options.printing_tables_loudly
def lint(
    model: Path, fix: bool, output: Path | None, compiles: bool, architectures: str | None, shapes: tuple[str, ...],
    force: bool, printing: Printing,
) -> None:  # fmt: skip
    """Show what TensorRT rejects or runs slowly in the Q/DQ model MODEL, whichever tool wrote it.

    --fix corrects what can be corrected without changing what the model computes: int32 biases, uint8 with zero point
    128, onnxruntime's own Q/DQ operators, equal pairs on one tensor, nodes that only pass a weight on, and scales and
    zero points of 0 in a form that TensorRT does not accept. It writes nothing if there is nothing of these. Exit code:
    1 if errors are left, 0 if nothing else is left than findings about speed and accuracy.

    --compile adds what NVIDIA's compiler says, without a GPU: what it refuses, and what it computes in float although
    Q/DQ stands around it.
    """
    from quantkit.cli.terminal.progress import Spinner
    from quantkit.linting.lint import lint as run

    if output and not fix:
        raise UsageError("--output names the fixed copy, but --fix is not given", remedy="add --fix")
    target = (output or beside(model, f"{model.stem}.fixed.onnx")) if fix else None
    if not compiles and (architectures or shapes):
        raise UsageError("--for and --shapes are about compiling, but --compile is not given", remedy="add --compile")
    request = compile_request(architectures, shapes) if compiles else None
    with Spinner(hidden=printing.hides_progress) as spinner:
        report = run(model, fix_to=target, force=force, compile_for=request, stage=spinner.phase)
    printing.print_result(report, lint_document, lambda report: print_lint_report(report, fix=fix))
    if report.errors:
        raise click.exceptions.Exit(1)


def compile_request(architectures: str | None, shapes: tuple[str, ...]) -> CompileRequest:
    """Return the request for the compiler. UsageError."""
    from quantkit.backends.tensorrt_rtx.architectures import DEFAULT_ARCHITECTURES, parse_architectures
    from quantkit.linting.compiler import CompileRequest

    return CompileRequest(parse_architectures(architectures) if architectures else DEFAULT_ARCHITECTURES, shapes)


def print_lint_report(report: LintReport, *, fix: bool) -> None:
    """Print the findings by severity and rule; fix: whether fixes were asked for."""
    for severity, heading in HEADINGS.items():
        findings = [f for f in report.findings if f.severity == severity]
        if findings:
            print_line(heading)
            print_findings(findings)
            print_line()
    if report.written:
        print_fixed(report)
    elif fix:
        print_line("fixed  nothing: no finding can be fixed exactly, and no copy was written")
    quantized, weighted = report.int8_layers
    fp8 = report.fp8_layers
    if fp8:
        print_line(f"FP8    {fp8} of {weighted} operators with weights" + ("" if quantized else floats(fp8, weighted)))
    if quantized < weighted and (quantized or not fp8):
        print_line(f"INT8   {quantized} of {weighted} operators with weights{floats(quantized + fp8, weighted)}")
    for text in report.compiler.lines if report.compiler else ():
        print_line(text)
    fixable = sum(finding.fixable for finding in report.findings)
    print_line(report.summary + (f"; --fix corrects {fixable}" if fixable else ""))


def floats(quantized: int, weighted: int) -> str:
    """Return that the other operators are float, if there are any."""
    return "; the others compute in float" if quantized < weighted else ""


def print_findings(findings: list[Finding]) -> None:
    """Print findings of one severity, rule by rule, each in the order of the graph."""
    ordered = {f.rule: n for n, f in reversed(list(enumerate(findings)))}
    for rule, group in groupby(sorted(findings, key=lambda f: ordered[f.rule]), key=lambda f: f.rule):
        those = list(group)
        for f in those[:SHOWN]:
            print_line(f"  {f.where}: {f.problem} → {f.remedy}")
        if len(those) > SHOWN:
            print_line(f"  … {len(those) - SHOWN} more of {rule} (--json lists all)")


def print_fixed(report: LintReport) -> None:
    """Print how many findings of each rule the copy fixes."""
    counts: dict[str, int] = {}
    for f in report.fixed:
        counts[f.rule] = counts.get(f.rule, 0) + 1
    print_line(f"fixed  {', '.join(f'{n} {rule}' for rule, n in counts.items())}")
    if report.trial is not None:
        print_line(f"tried  {report.trial.text}")
    print_line(f"wrote  {report.written}")


def lint_document(report: LintReport) -> dict[str, Any]:
    """Return the result for programs."""
    return {
        "model": str(report.path),
        "findings": [finding_document(f) for f in report.findings],
        "fixed": [finding_document(f) for f in report.fixed],
        "written": str(report.written) if report.written else None,
        "summary": report.summary,
        "int8_layers": list(report.int8_layers),
        "fp8_layers": report.fp8_layers,
        "trial": report.trial and report.trial.document,
        "compiler": report.compiler and compiler_document(report.compiler),
    }


def compiler_document(compiled: CompilerReport) -> dict[str, Any]:
    """Return what the compiler says for programs; its findings stand with the others."""
    return {
        "version": compiled.version,
        "compiled": [
            {
                "architecture": network.architecture,
                "kernels": len(network.running),
                "products": len(network.products),
                "int8_products": sum(kernel.int8 for kernel in network.products),
                "engine_bytes": network.engine_bytes,
                "seconds": network.seconds,
            }
            for network in compiled.networks
        ],
        "refused": [
            {
                "architecture": r.architecture,
                "node": r.node,
                "operator": r.operator,
                "problem": r.problem,
                "text": r.text,
            }
            for r in compiled.refusals
        ],
        "chosen_shapes": list(compiled.chosen),
    }


def finding_document(finding: Finding) -> dict[str, Any]:
    """Return a finding for programs."""
    return {
        "rule": finding.rule,
        "severity": finding.severity,
        "where": finding.where,
        "problem": finding.problem,
        "remedy": finding.remedy,
        "fixable": finding.fixable,
    }
