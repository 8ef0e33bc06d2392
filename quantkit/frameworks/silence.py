"""Silence for libraries that print from C++, or before their logging can be configured."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator

LOGGERS = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir", "tf2onnx", "tensorflow", "absl")
STREAMS = (1, 2)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Suppress warnings, log lines, and output to standard output and error; exceptions pass."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_streams():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def redirect_streams() -> Iterator[None]:
    """Redirect standard output and error to nowhere, for Python and for C++."""
    sys.stdout.flush()
    sys.stderr.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    kept = {stream: os.dup(stream) for stream in STREAMS}
    try:
        for stream in STREAMS:
            os.dup2(nowhere, stream)
        with contextlib.ExitStack() as stack:
            void = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(void))
            stack.enter_context(contextlib.redirect_stderr(void))
            yield
    finally:
        for stream, copy in kept.items():
            os.dup2(copy, stream)
            os.close(copy)
        os.close(nowhere)
