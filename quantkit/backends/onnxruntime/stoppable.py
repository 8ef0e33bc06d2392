"""Runs of onnxruntime that the user can stop, and its errors as quantkit's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quantkit.backends.runs_in_progress import RUNS
from quantkit.errors import BackendError, ModelError, first_line

SILENT = 4
"""onnxruntime's log level for nothing but fatal errors; everything else comes as an exception."""
NO_MEMORY = ("Failed to allocate memory", "out of memory", "CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED")


def run_stoppably(run: Callable[[Any], Any]) -> Any:
    """Return what `run` returns, which is called with onnxruntime's options. ModelError; KeyboardInterrupt if the user
    has stopped it.
    """
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.log_severity_level = SILENT
    RUNS.begin(options)
    try:
        return run(options)
    except Exception as error:
        if options.terminate:
            raise KeyboardInterrupt from None
        raise run_error(error) from error
    finally:
        RUNS.end(options)


def from_onnxruntime(error: Exception) -> bool:
    """Return True if onnxruntime itself raised this error (its exceptions have no common base)."""
    return type(error).__module__.startswith("onnxruntime") or isinstance(error, (RuntimeError, ValueError))


def run_error(error: Exception) -> Exception:
    """Return a failed run as a ModelError, or for want of memory as a BackendError.

    An error that does not come from onnxruntime is returned as it is.
    """
    if not from_onnxruntime(error):
        return error
    if any(words in str(error) for words in NO_MEMORY):
        return BackendError(
            f"onnxruntime has not enough memory for this batch: {first_line(error)}",
            remedy="lower --max-memory (--provider cuda) or --batch-size",
        )
    return ModelError(
        f"onnxruntime cannot run the network on this batch: {first_line(error)}",
        remedy="check that the data fits the network (quantkit inspect MODEL)",
    )
