"""`quantkit lint`."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantkit.cli import options
from quantkit.cli.console import print_json
from quantkit.errors import UsageError

if TYPE_CHECKING:
    from quantkit.linting.finding import Finding
    from quantkit.linting.lint import LintReport

SHOWN = 10
HEADINGS = {
    "error": "errors: TensorRT rejects this, or computes something else",
    "slow": "slow: it runs, but not as fast as it could",
    "accuracy": "accuracy: it runs, but may be less exact than it could be",
}


@click.command()
@click.argument("model", metavar="MODEL", type=options.PATH)
@click.option("--fix", is_flag=True, help="Write a copy with everything mended that can be mended exactly.")
@click.option(
    "--output",
    "-o",
    metavar="PATH",
    type=options.PATH,
    help="The mended copy. Default: MODEL.mended.onnx beside the model.",
)
@options.force
@options.as_json
def lint(model: Path, fix: bool, output: Path | None, force: bool, as_json: bool) -> None:
    """Show what TensorRT will reject or run slowly in the Q/DQ model MODEL, whichever tool wrote it.

    --fix mends what can be mended without changing what the model computes: int32 biases, uint8 with zero point 128,
    equal pairs on one tensor, and scales and zero points of 0 in a form that TensorRT does not take. Exit code: 0
    where nothing or only slow and accuracy findings are left, 1 where errors are left.
    """
    from quantkit.linting.lint import lint as run

    if output and not fix:
        raise UsageError("--output names a mended copy, and nothing is to be mended", remedy="add --fix")
    target = (output or model.with_name(f"{model.stem}.mended.onnx")) if fix else None
    report = run(model, fix_to=target, force=force)
    if as_json:
        print_json(lint_document(report))
    else:
        print_lint_report(report)
    if report.errors:
        raise click.exceptions.Exit(1)


def print_lint_report(report: LintReport) -> None:
    """What was found, by severity and rule."""
    for severity, heading in HEADINGS.items():
        found = [f for f in report.findings if f.severity == severity]
        if found:
            print(heading)
            print_findings(found)
            print()
    if report.written:
        print_fixed(report)
    able = sum(found.fixable for found in report.findings)
    print(report.summary + (f"; --fix mends {able}" if able else ""))


def print_findings(found: list[Finding]) -> None:
    """Findings of one severity, rule by rule, each in the order of the graph."""
    ordered = {f.rule: n for n, f in reversed(list(enumerate(found)))}
    for rule, group in groupby(sorted(found, key=lambda f: ordered[f.rule]), key=lambda f: f.rule):
        those = list(group)
        for f in those[:SHOWN]:
            print(f"  {f.where}: {f.problem} → {f.remedy}")
        if len(those) > SHOWN:
            print(f"  … {len(those) - SHOWN} more of {rule} (--json has all)")


def print_fixed(report: LintReport) -> None:
    """What the copy mends."""
    counts: dict[str, int] = {}
    for f in report.fixed:
        counts[f.rule] = counts.get(f.rule, 0) + 1
    print(f"mended  {', '.join(f'{n} {rule}' for rule, n in counts.items()) or 'nothing'}")
    print(f"wrote   {report.written}")


def lint_document(report: LintReport) -> dict[str, Any]:
    """The result for programs."""
    return {
        "model": str(report.path),
        "findings": [finding_document(f) for f in report.findings],
        "fixed": [finding_document(f) for f in report.fixed],
        "written": str(report.written) if report.written else None,
        "summary": report.summary,
    }


def finding_document(found: Finding) -> dict[str, Any]:
    """A finding for programs."""
    return {
        "rule": found.rule,
        "severity": found.severity,
        "where": found.where,
        "problem": found.problem,
        "remedy": found.remedy,
        "fixable": found.fixable,
    }
