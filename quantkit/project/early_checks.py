"""What a late step would refuse of this model, refused before the first one: metrics, labels, shapes, a missing GPU."""

from __future__ import annotations

from pathlib import Path

from quantkit.data.classes import read_classes
from quantkit.engines.bench import explain_no_gpu
from quantkit.errors import BackendError
from quantkit.metrics.registry import resolve_metric
from quantkit.project.inputs import RunPlan, file_identity


def refuse_early(plan: RunPlan) -> None:
    """UsageError, DataError (labels, classes), BackendError (engines are asked for, and there is no GPU)."""
    refuse_metrics(plan)
    refuse_engines(plan)


def refuse_metrics(plan: RunPlan) -> None:
    """What `evaluate` would refuse."""
    wanted = plan.settings.evaluate
    for text in wanted.metrics:
        resolve_metric(text, plan.model.outputs)
    file_identity(wanted.labels)
    if wanted.classes is not None:
        read_classes(Path(wanted.classes))


def refuse_engines(plan: RunPlan) -> None:
    """What `build` would refuse, also where nothing is built for want of a GPU."""
    from quantkit.backends.tensorrt.shapes import parse_shapes

    settings = plan.settings
    parse_shapes(settings.build.shapes, plan.model.inputs)
    if settings.gpu and (reason := explain_no_gpu(0)):
        raise BackendError(
            f"engines cannot be built: {reason}",
            remedy="leave out --gpu (gpu = true in quantkit.toml), or use another machine",
        )
