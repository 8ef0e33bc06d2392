"""Which backend calibrates: the one that is asked for, or the one that gives TensorRT's own table where it can."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from quantkit.calibration.options import CalibrateOptions
from quantkit.calibration.tables import default_algorithm
from quantkit.errors import BackendError, UsageError
from quantkit.histogram import HistogramMode
from quantkit.provenance import backend_kind, provenance_path, read_provenance
from quantkit.rules import Entropy, MinMax, Percentile, Rule
from quantkit.table import Algorithm
from quantkit.tensorrt_version import has_driver, installed_number, version_number

ONE_PASS = "one pass for all rules, statistics, resuming and learning curves: --backend onnxruntime"
FITTING: dict[Algorithm, type] = {
    Algorithm.ENTROPY_2: Entropy,
    Algorithm.ENTROPY: Entropy,
    Algorithm.MIN_MAX: MinMax,
    Algorithm.LEGACY: Percentile,
}


def choose_backend(
    options: CalibrateOptions, rules: Sequence[Rule], output: str | os.PathLike[str] | None
) -> tuple[str, tuple[str, ...]]:
    """`tensorrt` or `onnxruntime`, and what the user should know about the choice.

    `auto` takes TensorRT where a table is written, TensorRT is 8.6 … 10.x, a GPU is there, and TensorRT can do what is
    asked for; a table that is there already decides, so that it can be reused. Where nothing is written it is
    statistics that the caller is after, and those TensorRT does not give. BackendError, UsageError where TensorRT was
    asked for and cannot.
    """
    if options.backend == "onnxruntime":
        return "onnxruntime", ()
    beyond = unsupported_by_calibrators(options, rules)
    if options.backend == "tensorrt":
        if beyond:
            raise UsageError(f"TensorRT's calibrators {beyond}", remedy=ONE_PASS)
        refuse_without_calibrators()
        return "tensorrt", ()
    if output is None or options.provider != "cpu":
        return "onnxruntime", ()
    if not has_driver():  # without looking further, which would take time
        return "onnxruntime", ()
    known = None if options.force else read_provenance(provenance_path(Path(output)))
    if known is not None and known.run is not None and backend_kind(known.run.backend) != "tensorrt":
        return "onnxruntime", ()
    if beyond:
        return "onnxruntime", (f"onnxruntime calibrates: TensorRT's calibrators {beyond}",)
    try:
        refuse_without_calibrators()
    except BackendError as error:
        return "onnxruntime", (f"onnxruntime calibrates: {error.problem}",)
    return "tensorrt", ("TensorRT calibrates (--backend onnxruntime is quicker and keeps statistics)",)


def refuse_without_calibrators() -> None:
    """BackendError where TensorRT, its calibrators or a GPU are missing."""
    from quantkit.backends.tensorrt.device import open_device
    from quantkit.backends.tensorrt.versions import calibrator_base, tensorrt

    calibrator_base(tensorrt("--backend onnxruntime"), Algorithm.ENTROPY_2)
    open_device()


def unsupported_by_calibrators(options: CalibrateOptions, rules: Sequence[Rule]) -> str | None:
    """What TensorRT's calibrators cannot do of what is asked for; None where they can do all."""
    if len(rules) > 1:
        return "make one table a run"
    algorithm = options.algorithm or default_algorithm(rules[0])
    if not isinstance(rules[0], FITTING[algorithm]):
        return f"have no rule {rules[0].name} ({algorithm.value})"
    if options.provider != "cpu":
        return "know no --provider"
    if options.histogram is HistogramMode.INVARIANT:
        return "have histograms of their own"
    if options.resume:
        return "cannot resume"
    if options.learning_curve:
        return "show no learning curve"
    if options.tensorrt_version is not None and version_number(options.tensorrt_version) != installed_number():
        return f"write tables for their own version, not for {options.tensorrt_version}"
    return None
