"""What a late step would refuse of this model, refused before the first one: metrics, labels, shapes, a missing GPU."""

from __future__ import annotations

from pathlib import Path

from quantkit.data.classes import read_classes
from quantkit.engines.bench import why_no_gpu
from quantkit.errors import BackendError
from quantkit.metrics.registry import metric_named
from quantkit.project.inputs import Plan, file_identity


def refuse_late_faults(plan: Plan) -> None:
    """UsageError, DataError (labels, classes), BackendError (engines are asked for, and there is no GPU)."""
    refuse_metrics(plan)
    refuse_engines(plan)


def refuse_metrics(plan: Plan) -> None:
    """What `evaluate` would refuse."""
    wanted = plan.settings.evaluate
    for text in wanted.metrics:
        metric_named(text, plan.model.outputs)
    file_identity(wanted.labels)
    if wanted.classes is not None:
        read_classes(Path(wanted.classes))


def refuse_engines(plan: Plan) -> None:
    """What `build` would refuse, also where nothing is built for want of a GPU."""
    from quantkit.backends.tensorrt.shapes import parse_shapes

    settings = plan.settings
    parse_shapes(settings.build.shapes, plan.model.inputs)
    if settings.gpu and (reason := why_no_gpu(0)):
        raise BackendError(
            f"engines cannot be built: {reason}",
            remedy="leave out --gpu (gpu = true in quantkit.toml), or use another machine",
        )
