"""The step that compiles the Q/DQ model with TensorRT-RTX, on the CPU; it is skipped where that is not installed."""

from __future__ import annotations

from pathlib import Path

from quantkit._version import __version__
from quantkit.backends.tensorrt_rtx.compiling import compiler_version, require_compiler
from quantkit.backends.tensorrt_rtx.record import CompiledRecord, compiled_record_bytes
from quantkit.errors import BackendError
from quantkit.linting.compiler import CompileRequest, CompilerReport, compare_with_compiler
from quantkit.linting.registry import lint_model
from quantkit.project.settings import Settings
from quantkit.project.steps import RunSteps
from quantkit.project.store import StepOutcome
from quantkit.provenance import ModelRecord

SHOWN = 3


def compiles(settings: Settings) -> bool:
    """Return whether a run compiles. BackendError if that is required and TensorRT-RTX is not installed."""
    if settings.compile:
        require_compiler()
    return settings.compile is not False and compiler_version() is not None


def compile_step(steps: RunSteps, model: StepOutcome) -> StepOutcome | None:
    """Compile the Q/DQ model, and note what the compiler says; None if it is not compiled."""
    plan = steps.plan
    if not compiles(plan.settings):
        return None
    names = plan.published_names()
    shapes = plan.settings.build.shapes

    def work(folder: Path) -> tuple[str, ...]:
        made = steps.network_of(model)
        compiled = compare_with_compiler(made, lint_model(made), CompileRequest(shapes=shapes), steps.watcher.phases)
        about = ModelRecord(file=names["model"], sha256=made.sha256)
        record = CompiledRecord(quantkit=__version__, model=about, networks=compiled.networks)
        (folder / names["compiled"]).write_bytes(compiled_record_bytes(record))
        return compiler_notes(compiled)

    inputs = {"Q/DQ": model.digest, "TensorRT-RTX": compiler_version(), "shapes": shapes}
    return steps.attempt("compile", inputs, work, "the Q/DQ model was not compiled", BackendError)


def compiler_notes(compiled: CompilerReport) -> tuple[str, ...]:
    """Return what the compiler says about a Q/DQ model that quantkit made, in few lines."""
    by_rule: dict[str, list[str]] = {}
    for finding in compiled.findings:
        by_rule.setdefault(finding.rule, []).append(f"{finding.where}: {finding.problem}")
    more = [f"{len(texts) - SHOWN} more of {rule}: quantkit lint --compile" for rule, texts in by_rule.items()
            if len(texts) > SHOWN]  # fmt: skip
    return (*compiled.lines, *(text for texts in by_rule.values() for text in texts[:SHOWN]), *more)
