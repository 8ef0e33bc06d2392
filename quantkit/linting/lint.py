"""lint: what TensorRT will reject or run slowly in a Q/DQ model of any tool, and a copy with safe fixes."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from quantkit.artifact import check_destinations, refuse_overwriting, write_whole
from quantkit.backends.trial_run import Trial, try_network
from quantkit.errors import ModelError, OutputError
from quantkit.graph import AnyModel, Model, load_model, refuse_changed_weights
from quantkit.graph.messages import all_tensors, is_external
from quantkit.graph.save import store_inside, tensor_size
from quantkit.linting.compiler import CompileRequest, CompilerReport, check_request, compare_with_compiler
from quantkit.linting.finding import SEVERITIES, Finding
from quantkit.linting.fix import fix_model
from quantkit.linting.registry import lint_model
from quantkit.qdq.layer_counts import count_fp8_layers, count_int8_layers
from quantkit.qdq.reader import has_qdq
from quantkit.view import Block, RichDisplay, ViewTable

if TYPE_CHECKING:
    import onnx

MOST_BYTES = 2**31 - 1
"""Size limit of a protobuf message."""


@dataclass(frozen=True, slots=True)
class LintReport(RichDisplay):
    """Findings in a Q/DQ model.

    findings: those that are left, in graph order; fixed: those that the copy `written` does not have any more. Where
    nothing could be fixed, no copy is written.
    """

    path: Path
    findings: tuple[Finding, ...]
    fixed: tuple[Finding, ...] = ()
    written: Path | None = None
    int8_layers: tuple[int, int] = (0, 0)
    """Operators with weights that compute in INT8, and all with weights."""
    fp8_layers: int = 0
    """Those that compute in FP8."""
    trial: Trial | None = None
    """The outcome of running the copy once, beside the model, before it was written."""
    compiler: CompilerReport | None = None
    """The result of compiling the copy, or the model without one; its findings are in `findings`."""

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that TensorRT rejects, or reads otherwise than the file says."""
        return tuple(found for found in self.findings if found.severity == "error")

    @property
    def summary(self) -> str:
        """Counts by severity, for example `3 errors, 2 slow`."""
        counts = Counter(found.severity for found in self.findings)
        if not counts:
            return "nothing found"
        names = {"error": "error" if counts["error"] == 1 else "errors"}
        return ", ".join(f"{counts[s]} {names.get(s, s)}" for s in SEVERITIES if counts[s])

    def _view_(self) -> Sequence[Block]:
        ranks = {severity: number for number, severity in enumerate(SEVERITIES)}
        rows = [
            (found.severity, found.where, found.problem, found.remedy)
            for found in sorted(self.findings, key=lambda found: ranks[found.severity])
        ]
        fixed = f", {len(self.fixed)} fixed" if self.written else ""
        head = ("severity", "node", "problem", "remedy")
        compiled = self.compiler.lines if self.compiler else ()
        return f"{self.path.name}: {self.summary}{fixed}", ViewTable(head, rows, frozenset(range(4))), *compiled


def lint(
    path: AnyModel,
    *,
    fix_to: str | os.PathLike[str] | None = None,
    force: bool = False,
    compile_for: CompileRequest | None = None,
    stage: Callable[[str], None] = lambda _: None,
) -> LintReport:
    """Find what TensorRT will reject or run slowly in the Q/DQ nodes of an ONNX model.

    fix_to: write a copy there without the findings that can be fixed exactly; it computes the same numbers, and
    contains its weights. Nothing is written if there is nothing to fix. compile_for: compile it with TensorRT-RTX as
    well, on the CPU, and add what the compiler says (see `compiler`); `stage` is called with what it does.

    Raises ModelError if the model cannot be read, or has no Q/DQ and is not compiled; StaleError if `fix_to` exists and
    `force` is not given, UsageError if it is the model itself, OutputError; BackendError without TensorRT-RTX, or where
    the compiler exceeds a limit.
    """
    if compile_for is not None:
        check_request(load_model(path), compile_for)
    report = lint_rules_alone(path, fix_to, force=force, needs_qdq=compile_for is None)
    if compile_for is None:
        return report
    compiled = compare_with_compiler(load_model(report.written or path), report.findings, compile_for, stage)
    return replace(report, findings=(*report.findings, *compiled.findings), compiler=compiled)


def lint_rules_alone(
    path: AnyModel, fix_to: str | os.PathLike[str] | None, *, force: bool, needs_qdq: bool
) -> LintReport:
    """Lint by the rules, and write a copy with what can be fixed; see `lint`."""
    target = Path(fix_to) if fix_to is not None else None
    if target is not None:
        check_destinations([target], read=[path], force=force)
    model = load_model(path)
    if target is not None:
        refuse_overwriting([target], model.files)
    found = lint_model(model)
    if needs_qdq and not has_qdq(model) and not found:
        raise ModelError(
            f"{model.path} has no QuantizeLinear and no DequantizeLinear: nothing in it is quantized",
            remedy="give a Q/DQ model; quantkit calibrate is for float models",
        )
    if target is None:
        return LintReport(model.path, found, int8_layers=count_int8_layers(model), fp8_layers=count_fp8_layers(model))
    proto, fixed = fix_model(model)
    if not fixed:
        return LintReport(model.path, found, int8_layers=count_int8_layers(model), fp8_layers=count_fp8_layers(model))
    fixed_model = Model(model.path, proto, "")
    left = lint_model(fixed_model)
    trial = try_network(target, fixed_model, model)
    content = self_contained_bytes(model, proto)
    refuse_changed_weights(model)
    write_whole(target, content, force=force)
    counts = count_int8_layers(fixed_model), count_fp8_layers(fixed_model)
    return LintReport(model.path, left, fixed, target, *counts, trial)


def self_contained_bytes(model: Model, proto: onnx.ModelProto) -> bytes:
    """Return a model as one file that contains its external weights, so that it can be moved. OutputError."""
    from google.protobuf.message import EncodeError

    size = proto.ByteSize() + sum(tensor_size(tensor) for tensor in all_tensors(proto) if is_external(tensor))
    content = b""
    if size <= MOST_BYTES:
        copy = type(proto)()
        copy.CopyFrom(proto)
        store_inside(copy, model.folder, str(model.path))
        with contextlib.suppress(EncodeError, ValueError):
            content = copy.SerializeToString(deterministic=True)
    if not content:
        raise OutputError(
            f"{model.path} is larger than 2 GB, which an ONNX file cannot hold",
            remedy="leave --fix out, and quantize again without the defects that lint finds",
        )
    return content
