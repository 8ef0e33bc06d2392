"""lint: what TensorRT will reject or run slowly in a Q/DQ model of any tool, and a copy with what can be mended."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantkit.artifact import check_writable, refuse_existing, write_whole
from quantkit.errors import ModelError, OutputError, UsageError
from quantkit.graph import Model, load_model
from quantkit.linting.finding import Finding, Severity
from quantkit.linting.fix import mend
from quantkit.linting.parser_rules import lint as findings_in
from quantkit.qdq.reader import has_qdq
from quantkit.view import Block, RichDisplay, ViewTable

if TYPE_CHECKING:
    import onnx

SEVERITIES: tuple[Severity, ...] = ("error", "slow", "accuracy")
MOST_BYTES = 2**31 - 1
"""Of a protobuf message."""


@dataclass(frozen=True, slots=True)
class LintReport(RichDisplay):
    """What is wrong with a Q/DQ model. findings: what is left, in graph order; fixed: what the copy `written` mends."""

    path: Path
    findings: tuple[Finding, ...]
    fixed: tuple[Finding, ...] = ()
    written: Path | None = None

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What TensorRT rejects, or reads otherwise than the file says."""
        return tuple(found for found in self.findings if found.severity == "error")

    @property
    def summary(self) -> str:
        """For example `3 errors, 2 slow`."""
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
        mended = f", {len(self.fixed)} mended" if self.written else ""
        head = ("severity", "node", "problem", "remedy")
        return f"{self.path.name}: {self.summary}{mended}", ViewTable(head, rows, frozenset(range(4)))


def lint(
    path: str | os.PathLike[str], *, fix_to: str | os.PathLike[str] | None = None, force: bool = False
) -> LintReport:
    """Look at the Q/DQ nodes of an ONNX model with TensorRT's eyes.

    fix_to: writes a copy there without what can be mended exactly: the copy computes the same, and holds its weights
    itself. Raises ModelError where the model cannot be read or has no Q/DQ, StaleError where `fix_to` is there and
    `force` is not given, UsageError where it is the model itself, OutputError.
    """
    target = Path(fix_to) if fix_to is not None else None
    if target is not None:
        if target.exists() and target.resolve() == Path(path).resolve():
            raise UsageError(f"{target} is the model itself", remedy="give another --output")
        refuse_existing(target, force=force)
        check_writable(target)
    model = load_model(path)
    found = findings_in(model)
    if not has_qdq(model) and not found:
        raise ModelError(
            f"{model.path} has no QuantizeLinear and no DequantizeLinear: nothing in it is quantized",
            remedy="give a Q/DQ model; a float model is calibrated with quantkit calibrate",
        )
    if target is None:
        return LintReport(model.path, found)
    proto, fixed = mend(model)
    left = findings_in(Model(model.path, proto, ""))
    write_whole(target, whole(model, proto))
    return LintReport(model.path, left, fixed, target)


def whole(model: Model, proto: onnx.ModelProto) -> bytes:
    """A model as one file, with its external weights inside, so that it can lie anywhere. OutputError."""
    from google.protobuf.message import EncodeError
    from onnx import external_data_helper

    copy = type(proto)()
    copy.CopyFrom(proto)
    external_data_helper.load_external_data_for_model(copy, str(model.folder))
    try:
        content = copy.SerializeToString(deterministic=True) if copy.ByteSize() <= MOST_BYTES else b""
    except (EncodeError, ValueError):
        content = b""
    if not content:
        raise OutputError(
            f"{model.path} is larger than 2 GB, which an ONNX file cannot hold",
            remedy="quantize again without what lint finds",
        )
    return content
