"""Sessions of the network of a job."""

from __future__ import annotations

from quantkit.backends.session import Session
from quantkit.job.options import CalibrateOptions
from quantkit.job.value import Job
from quantkit.pipeline.plan import Plan


def opened(job: Job, tensors: tuple[str, ...], plan: Plan) -> Session:
    """An onnxruntime session that watches `tensors`."""
    from quantkit.backends.onnxruntime import OnnxRuntimeSession

    alone = plan.runners == 1
    return OnnxRuntimeSession(
        job.model,
        tensors,
        provider=job.options.provider,
        threads=job.options.data.workers if alone else 1,
        fixed_shapes=job.watch.fixed_shapes,
    )


def backend_version(options: CalibrateOptions) -> str:
    """Library and provider."""
    from quantkit.backends.onnxruntime import version

    return version(options.provider)
