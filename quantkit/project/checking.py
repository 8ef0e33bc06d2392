"""What a late step would refuse, refused before the first one: a name that is none, a file that is not there."""

from __future__ import annotations

from pathlib import Path

from quantkit.data.classes import read_classes
from quantkit.errors import BackendError, UsageError
from quantkit.evaluation.metrics import metric_named
from quantkit.graph import Policy, WeightForm
from quantkit.pipeline.bench import why_no_gpu
from quantkit.pipeline.repairing import settled
from quantkit.project.plan import Plan, file_identity
from quantkit.rules import as_rules


def refuse_late_faults(plan: Plan) -> None:
    """UsageError, DataError (labels, classes), BackendError (engines are asked for, and there is no GPU)."""
    refuse_scales(plan)
    refuse_metrics(plan)
    refuse_engines(plan)


def refuse_scales(plan: Plan) -> None:
    """What `calibrate` and `quantize` would refuse."""
    chosen = plan.settings.quantize
    if plan.settings.rule is not None and len(as_rules(plan.settings.rule)) > 1:
        raise UsageError(
            f"{plan.settings.rule}: table and Q/DQ model have one rule",
            remedy="name one, or best, which chooses for every tensor",
        )
    settled(chosen.repairs, statistics=True, data=True)
    Policy.named(chosen.policy)
    if chosen.weights is not None:
        WeightForm.named(chosen.weights)


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
    from quantkit.backends.tensorrt.options import Precision
    from quantkit.backends.tensorrt.shapes import parse_shapes

    settings = plan.settings
    for name in settings.build.precisions:
        Precision.named(name)
    parse_shapes(settings.build.shapes, plan.model.inputs)
    if settings.gpu and (reason := why_no_gpu(0)):
        raise BackendError(
            f"engines cannot be built: {reason}",
            remedy="leave out --gpu (gpu = true in quantkit.toml), or use another machine",
        )
