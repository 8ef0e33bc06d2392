"""PyTorch's two ONNX exporters, and the choice between them.

    torch.export  (PyTorch 2.6 and newer, with onnxscript)   opset 18 and newer
    TorchScript   (every PyTorch; traces one run)            opsets up to 20, deprecated since 2.9

Sources: torch.onnx.export's documentation (`optimize` came with 2.6, `dynamo=True` became the default with 2.9, the
silent fallback from one exporter to the other left with 2.11). A model in opset 18 that is requested in 17 stays in 18
without an error if the conversion fails; therefore the TorchScript exporter writes 17 and older.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantkit.errors import BackendError, UsageError
from quantkit.extras import install_command
from quantkit.frameworks.silence import silence
from quantkit.values import NamedChoice

LEAST_OPSET, NEW_OPSET, MOST_OPSET = 13, 18, 20
"""13 is the first with per-channel Q/DQ; torch.export's exporter writes at least 18."""
EMBEDDED = 1_500_000_000
"""Bytes of weights that may be stored in the ONNX file itself."""


class Exporter(NamedChoice):
    """PyTorch's exporters."""

    DYNAMO = "dynamo"
    TORCHSCRIPT = "torchscript"

    @property
    def full_name(self) -> str:
        """Its name in messages."""
        return "torch.export" if self is Exporter.DYNAMO else "TorchScript"


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """A frozen value: what to export.

    arguments: positional example inputs, on the CPU; batched: names of those whose first axis is dynamic.
    """

    module: Any
    arguments: tuple[Any, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    batched: frozenset[str]
    opset: int


def choose_exporter(exporter: Exporter | None, opset: int | None) -> tuple[Exporter, int]:
    """Return the exporter and its opset. UsageError if they do not fit, BackendError if the exporter is missing."""
    if opset is not None and not LEAST_OPSET <= opset <= MOST_OPSET:
        raise UsageError(f"--opset {opset} is not in {LEAST_OPSET} … {MOST_OPSET}", remedy="leave --opset out")
    wanted = exporter
    if wanted is None:
        old = (opset is not None and opset < NEW_OPSET) or reason_without_dynamo()
        wanted = Exporter.TORCHSCRIPT if old else Exporter.DYNAMO
    if wanted is Exporter.TORCHSCRIPT:
        return wanted, opset or 17
    if opset is not None and opset < NEW_OPSET:
        raise UsageError(
            f"the exporter dynamo writes opset {NEW_OPSET} and newer, not {opset}",
            remedy="give --exporter torchscript, or leave --exporter out",
        )
    if reason := reason_without_dynamo():
        raise BackendError(f"the exporter dynamo cannot be used: {reason}", remedy=install_command("torch"))
    return wanted, opset or NEW_OPSET


def reason_without_dynamo() -> str:
    """Return why torch.export's exporter is not available here; empty if it is."""
    import torch

    if "optimize" not in inspect.signature(torch.onnx.export).parameters:
        return f"PyTorch {torch.__version__} is older than 2.6"
    missing = importlib.util.find_spec("onnxscript") is None
    return "onnxscript is not installed" if missing else ""


def export_module(exporter: Exporter, request: ExportRequest, path: Path) -> None:
    """Write `path`, and large weights beside it. Exceptions of the exporter pass through."""
    import torch

    options: dict[str, Any] = {
        "input_names": list(request.inputs),
        "output_names": list(request.outputs),
        "opset_version": request.opset,
    }
    known = inspect.signature(torch.onnx.export).parameters
    if exporter is Exporter.DYNAMO:
        options |= {"dynamo": True, "verbose": False, "optimize": True, "external_data": is_large(request.module)}
        options["dynamic_shapes"] = dynamic_shapes(request)
        options |= {"fallback": False} if "fallback" in known else {}
    else:
        names = (*request.inputs, *request.outputs) if request.batched else ()
        fixed = set(request.inputs) - request.batched
        options["dynamic_axes"] = {name: {0: "batch"} for name in names if name not in fixed}
        options |= {"dynamo": False} if "dynamo" in known else {}
    with silence(), unfused_attention(), torch.no_grad():
        torch.onnx.export(request.module, request.arguments, str(path), **options)


def dynamic_shapes(request: ExportRequest) -> tuple[Any, ...] | None:
    """Return a common symbol for the first axis of every batched input."""
    import torch

    if not request.batched:
        return None
    batch = torch.export.Dim("batch")
    return tuple({0: batch} if name in request.batched else None for name in request.inputs)


def is_large(module: Any) -> bool:
    """Return True if the weights need a separate file."""
    tensors = (*module.parameters(), *module.buffers())
    return sum(int(t.numel()) * int(t.element_size()) for t in tensors) > EMBEDDED


@contextlib.contextmanager
def unfused_attention() -> Iterator[None]:
    """Run attention as single operators: its fused form in evaluation mode has no counterpart in ONNX."""
    import torch

    switches = getattr(torch.backends, "mha", None)
    before = switches.get_fastpath_enabled() if switches is not None else None
    if switches is not None:
        switches.set_fastpath_enabled(False)
    try:
        yield
    finally:
        if switches is not None:
            switches.set_fastpath_enabled(before)


def flatten_outputs(outputs: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the tensors that a module returned in the exporters' order, with their names if they have any."""
    if isinstance(outputs, Mapping):
        for name, value in outputs.items():
            yield from flatten_outputs(value, str(name))
    elif isinstance(outputs, Sequence) and not isinstance(outputs, str):
        for value in outputs:
            yield from flatten_outputs(value, prefix)
    elif hasattr(outputs, "detach"):
        yield prefix, outputs
