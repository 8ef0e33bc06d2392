"""Who takes part, what each needs, and the command that runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from contestants.job import BATCH_SIZE, Job

RULES = "entropy,minmax,percentile:99.99,mse"

Arguments = Callable[[Job], list[str]]


@dataclass(frozen=True, slots=True)
class Contestant:
    """``needs``: modules it imports. ``leaves``: pattern of a file that it must have written."""

    name: str
    does: str
    needs: tuple[str, ...]
    arguments: Arguments
    leaves: str | None = None
    peer: bool = False

    def complaint(self, folder: Path) -> str | None:
        """Why a run that ended well did not do its job, or None."""
        if self.leaves is None:
            return None
        files = [file for file in folder.glob(self.leaves) if file.stat().st_size]
        if not files:
            return f"wrote no {self.leaves}"
        if self.peer and b"QuantizeLinear" not in files[0].read_bytes():
            return "wrote a model without QuantizeLinear"
        return None


def _module(name: str, *options: str) -> Arguments:
    """The command line of a contestant that is a module of this package."""

    def arguments(job: Job) -> list[str]:
        task = ["--model", str(job.model), "--images", str(job.images), "--output", str(job.output)]
        limit = [] if job.limit is None else ["--limit", str(job.limit)]
        return ["-m", f"contestants.{name}", *options, *task, *limit]

    return arguments


def _quantkit(job: Job) -> list[str]:
    """Quantkit's own command line, as anyone would type it."""
    limit = [] if job.limit is None else ["--limit", str(job.limit)]
    return [
        "-m",
        "quantkit",
        "calibrate",
        "--data",
        str(job.images),
        *limit,
        "--preprocess",
        "cifar10",
        "--rule",
        RULES,
        "--output",
        str(job.output / "x.calib"),
        "--batch-size",
        str(BATCH_SIZE),
        str(job.model),
    ]


def _peer(name: str, does: str, needs: tuple[str, ...], arguments: Arguments) -> Contestant:
    return Contestant(name, does, needs, arguments, leaves="quantized.onnx", peer=True)


_ORT = ("onnx", "onnxruntime.quantization")
_MODELOPT = ("onnx", "onnxruntime", "torch", "modelopt.onnx.quantization")

ROSTER = (
    Contestant("plain", "inference", ("onnxruntime",), _module("plain")),
    Contestant("floor", "inference, every activation an output", ("onnx", "onnxruntime"), _module("floor")),
    Contestant(
        "quantkit",
        f"calibrates by four rules at once: {RULES}; writes tables, no Q/DQ model",
        ("quantkit", "onnx", "onnxruntime"),
        _quantkit,
        leaves="*.calib",
    ),
    _peer(
        "onnxruntime-minmax",
        "calibrates by one rule, writes a Q/DQ model",
        _ORT,
        _module("ort_static", "MinMax"),
    ),
    _peer("onnxruntime-entropy", "the same", _ORT, _module("ort_static", "Entropy")),
    _peer("modelopt-max", "the same", _MODELOPT, _module("modelopt_ptq", "max")),
    _peer("modelopt-entropy", "the same", _MODELOPT, _module("modelopt_ptq", "entropy")),
    _peer(
        "nncf",
        "the same, with bias correction and, by default, uint8 activations",
        ("onnx", "onnxruntime", "nncf"),
        _module("nncf_ptq"),
    ),
)
