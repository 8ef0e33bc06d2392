"""Slices of batches: they are only allowed where the network treats every sample on its own."""

from __future__ import annotations

import numpy as np

from quantkit.backends.session import DEFAULT_PROVIDER, Session, backend_label, backend_named, split_provider
from quantkit.calibration.job import CalibrationJob
from quantkit.calibration.memory_plan import MemoryPlan, plan_memory, slice_batch
from quantkit.calibration.options import CalibrateOptions
from quantkit.data import Portion
from quantkit.errors import ModelError
from quantkit.values import Array


def plan_batches(job: CalibrationJob, first: Portion) -> tuple[MemoryPlan, Session, tuple[str, ...]]:
    """Return the plan, the session of its first pass, and notes.

    Batches stay whole if the model has a fixed batch size or mixes samples.
    """
    fixed = any(i.fixed_batch is not None for i in job.model.inputs)
    options = job.options

    def plan(whole: bool) -> tuple[MemoryPlan, Session]:
        made = plan_memory(
            job.model,
            job.watch,
            first.batch,
            first.samples,
            max_memory=options.memory,
            workers=options.data.threads,
            whole=whole,
            on_gpu=split_provider(options.provider)[0] != DEFAULT_PROVIDER,
        )
        return made, open_watching_session(job, made.passes[0], made)

    # One sample does not show whether samples are mixed, and later batches may hold more.
    chosen, session = plan(fixed or first.samples == 1)
    if fixed or first.samples == 1 or treats_samples_alone(job, chosen, session, first):
        return chosen, session, session.notes
    chosen, session = plan(True)
    return chosen, session, ("the network mixes the samples of a batch, so batches are not sliced", *session.notes)


def treats_samples_alone(job: CalibrationJob, plan: MemoryPlan, session: Session, first: Portion) -> bool:
    """Return True if the network treats samples on their own: two at once give what each gives alone."""
    names = [name for name in job.model.outputs if name in job.watch.tensors] or list(session.tensors)
    if len(plan.passes) > 1:
        session = open_watching_session(job, tuple(names), plan)
    run = session.runner()
    (pair, _), *_ = slice_batch(first.batch, first.samples, 2, plan.axes)
    try:
        alone = [{n: run(feeds)[n].copy() for n in names} for feeds, _ in slice_batch(pair, 2, 1, plan.axes)]
        together = run(pair)
    except ModelError:
        return False
    return all(outputs_agree(together[n], np.concatenate([a[n] for a in alone])) for n in names if together[n].ndim)


def outputs_agree(together: Array, alone: Array) -> bool:
    """Return True if two samples gave the same values together and alone, up to rounding."""
    if together.shape != alone.shape:
        return False
    most = np.abs(together).max(initial=0.0, where=np.isfinite(together))
    return bool(np.allclose(together, alone, rtol=1e-2, atol=1e-3 * most, equal_nan=True))


def open_watching_session(job: CalibrationJob, tensors: tuple[str, ...], plan: MemoryPlan) -> Session:
    """Open a session of the job's backend that watches `tensors`. ModelError, BackendError."""
    alone = plan.runners == 1
    return backend_named(job.options.backend).open_session(
        job.model,
        tensors,
        provider=job.options.provider,
        threads=job.options.data.threads if alone else 1,
        fixed_shapes=job.watch.fixed_shapes,
    )


def backend_version(options: CalibrateOptions) -> str:
    """Return backend, version and provider as records keep them."""
    return backend_label(backend_named(options.backend), options.provider)
