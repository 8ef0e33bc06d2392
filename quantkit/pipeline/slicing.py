"""Whether batches may be cut into slices: only where the network treats samples on their own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from quantkit.data import Portion
from quantkit.errors import ModelError
from quantkit.pipeline.job import Job, opened
from quantkit.pipeline.plan import Plan, make_plan, sliced


def planned(job: Job, first: Portion) -> tuple[Plan, tuple[str, ...]]:
    """The plan; batches stay whole where the model is fixed to them or its samples are not independent."""
    fixed = any(i.fixed_batch is not None for i in job.model.inputs)
    options = job.options

    def plan(whole: bool) -> Plan:
        return make_plan(
            job.model, job.watch, first.batch, first.samples,
            max_memory=options.max_memory, workers=options.data.workers, whole=whole,
        )  # fmt: skip

    chosen = plan(fixed)
    if fixed or first.samples == 1 or independent(job, chosen, first):
        return chosen, ()
    return plan(True), ("the network mixes the samples of a batch, so batches are run whole",)


def independent(job: Job, plan: Plan, first: Portion) -> bool:
    """Whether the network treats samples on their own: two at once give what each gives alone."""
    names = [name for name in job.model.outputs if name in job.watch.tensors]
    run = opened(job, tuple(names), job.options.provider, replace(plan, runners=1)).runner()
    (pair, _), *_ = sliced(first.batch, first.samples, 2)
    singles = sliced(pair, 2, 1)
    try:
        alone = [{n: a.copy() for n, a in run(feeds).items()} for feeds, _ in singles]
        together = run(pair)
    except ModelError:
        return False
    return all(
        together[n].shape[:1] == (2,)
        and np.allclose(
            together[n],
            np.concatenate([a[n] for a in alone]),
            rtol=1e-2,
            atol=1e-3 * np.abs(together[n]).max(),
        )
        for n in names
    )
