"""The choice of the backend that calibrates: the requested one, or TensorRT where it can make its own table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from quantkit.backends.session import AUTO, DEFAULT_BACKEND, DEFAULT_PROVIDER, TENSORRT
from quantkit.calibration.options import CalibrateOptions
from quantkit.errors import BackendError, UsageError
from quantkit.histogram import HistogramMode
from quantkit.provenance import backend_kind, provenance_path, read_provenance
from quantkit.rules import Rule, kind_of, rule_kinds
from quantkit.table import Algorithm
from quantkit.tensorrt_version import has_driver, installed_number, version_number

ONE_PASS = f"one pass for all rules, statistics, resuming and learning curves: --backend {DEFAULT_BACKEND}"


def choose_backend(
    options: CalibrateOptions, rules: Sequence[Rule], output: str | os.PathLike[str] | None
) -> tuple[str, tuple[str, ...]]:
    """Return the name of the backend, and notes for the user about the choice.

    `auto` chooses TensorRT if a table is written, TensorRT is 8.6 … 10.x, there is a GPU, and TensorRT's calibrators
    support the request; an existing table decides, so that it can be reused. If nothing is written, the caller wants
    statistics, which TensorRT does not provide. Raises BackendError or UsageError if TensorRT was requested and cannot
    calibrate.
    """
    if options.backend not in (AUTO, TENSORRT):
        return options.backend, ()
    unsupported = unsupported_by_calibrators(options, rules)
    if options.backend == TENSORRT:
        if unsupported:
            raise UsageError(f"TensorRT's calibrators {unsupported}", remedy=way_out(options, rules))
        refuse_without_calibrators()
        return TENSORRT, ()
    if output is None or options.provider != DEFAULT_PROVIDER:
        return DEFAULT_BACKEND, ()
    if not has_driver():  # the cheapest check comes first
        return DEFAULT_BACKEND, ()
    known = None if options.force else read_provenance(provenance_path(Path(output)))
    if known is not None and known.run is not None and backend_kind(known.run.backend) != TENSORRT:
        return DEFAULT_BACKEND, ()
    if unsupported:
        return DEFAULT_BACKEND, (f"{DEFAULT_BACKEND} calibrates: TensorRT's calibrators {unsupported}",)
    try:
        refuse_without_calibrators()
    except BackendError as error:
        return DEFAULT_BACKEND, (f"{DEFAULT_BACKEND} calibrates: {error.summary}",)
    return TENSORRT, (f"TensorRT calibrates (--backend {DEFAULT_BACKEND} is faster and keeps statistics)",)


def refuse_without_calibrators() -> None:
    """Raise BackendError where TensorRT, its calibrators or a GPU is missing."""
    from quantkit.backends.tensorrt.device import open_device
    from quantkit.backends.tensorrt.versions import calibrator_base, tensorrt

    calibrator_base(tensorrt(f"--backend {DEFAULT_BACKEND}"), Algorithm.ENTROPY_2)
    open_device()


def way_out(options: CalibrateOptions, rules: Sequence[Rule]) -> str:
    """Return what to do about what TensorRT's calibrators cannot do: name a rule that they have, if that is all."""
    algorithm = options.algorithm or kind_of(rules[0]).header
    usable = next(kind.rule() for kind in rule_kinds().values() if algorithm in kind.calibrators)
    if len(rules) > 1 or unsupported_by_calibrators(options, (usable,)):
        return ONE_PASS
    return f"--rule {usable.name} for TensorRT's own table, or --backend {DEFAULT_BACKEND}, which has every rule"


def unsupported_by_calibrators(options: CalibrateOptions, rules: Sequence[Rule]) -> str | None:
    """Return what TensorRT's calibrators cannot do of the request, as the end of a sentence; None if they can do it."""
    if len(rules) > 1:
        return "make one table per run"
    kind = kind_of(rules[0])
    algorithm = options.algorithm or kind.header
    if algorithm not in kind.calibrators:
        return f"do not have the rule {rules[0].name} ({algorithm.value})"
    if options.provider != DEFAULT_PROVIDER:
        return "do not take --provider"
    if options.histogram is HistogramMode.INVARIANT:
        return "have histograms of their own"
    if options.resume:
        return "cannot resume"
    if options.learning_curve:
        return "record no learning curve"
    if options.placement.divides:
        return "run in one process"
    if options.tensorrt_version is not None and version_number(options.tensorrt_version) != installed_number():
        return f"write tables for their own version, not for {options.tensorrt_version}"
    return None
