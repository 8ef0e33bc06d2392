"""Checks before the first step of errors that a late step would raise: metrics, labels, shapes, a missing GPU."""

from __future__ import annotations

from pathlib import Path

from quantkit.data.classes import read_classes
from quantkit.engines.bench import explain_no_gpu
from quantkit.errors import BackendError, UsageError
from quantkit.project.inputs import RunPlan, file_identity


def refuse_early(plan: RunPlan) -> None:
    """Raise UsageError, DataError (labels, classes), or BackendError (engines are required, but there is no GPU)."""
    _ = plan.settings.placement
    refuse_metrics(plan)
    refuse_engines(plan)


def refuse_metrics(plan: RunPlan) -> None:
    """Raise the errors that `evaluate` would raise for files of labels and classes."""
    wanted = plan.settings.evaluate
    file_identity(wanted.labels)
    if wanted.classes is not None:
        read_classes(Path(wanted.classes))


def refuse_engines(plan: RunPlan) -> None:
    """Raise the errors that `build` would raise; of shapes that are missing only if engines will be built."""
    from quantkit.backends.tensorrt.shapes import parse_shapes, read_given_shapes

    settings = plan.settings
    read_given_shapes(settings.build.shapes, plan.model.inputs)
    if settings.gpu is False:
        return
    if reason := explain_no_gpu(0):
        if settings.gpu:
            raise BackendError(
                f"engines cannot be built: {reason}",
                remedy="omit --gpu (gpu = true in quantkit.toml), or use another machine",
            )
        return
    try:
        parse_shapes(settings.build.shapes, plan.model.inputs)
    except UsageError as error:
        raise UsageError(error.problem, remedy=f"{error.remedy}; or build no engines: --no-gpu") from None
