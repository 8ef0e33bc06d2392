"""Messages that TensorRT logs: warnings and errors once each, phases of a build, times that its tuner measured."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from quantkit.backends.tensorrt.kernel_times import KernelTimes
from quantkit.errors import BackendError

UNSCALED = re.compile(r"Missing scale and zero-point for tensor (.*?), expect fall back")
WEIGHTS = re.compile(r"- (\d+) weights are affected by this issue: (.*)")
EXPECTED = (
    "It is suggested to disable layer timing cache while using AlgorithmSelector",
    "Your ONNX model has been generated with INT64 weights",  # in every PyTorch export; the parser checks the values
    "TensorRT encountered issues when converting weights",  # the numbers follow, see WEIGHTS
    "If this is not the desired behavior, please modify the weights",
    "Check verbose logs for the list of affected weights",
    "Calibrator is not being used",  # a Q/DQ network does not need one
)
PHASES = (
    (re.compile(r"Starting Calibration|Calibrated batch"), "calibrating"),
    (re.compile(r"Post Processing Calibration data"), "searching thresholds"),
    (re.compile(r"Reading Calibration Cache"), "reading the table"),
    (re.compile(r"Graph optimization time|After dead-layer removal"), "fusing layers"),
    (re.compile(r"Generated engine|Engine generation completed|Total Activation Memory"), "finishing the engine"),
)
COSTS = "=============== Computing costs for"
ORDER = ("INTERNAL_ERROR", "ERROR", "WARNING")


Phase = Callable[[str], None]


def ignore_phase(text: str) -> None:
    """Ignore a phase."""
    del text


class Messages:
    """A collection of TensorRT's messages during one operation.

    unscaled: tensors for which TensorRT found no scale. tuning: times that its tuner measured.
    """

    def __init__(self, phase: Callable[[str], None] | None = None) -> None:
        self.unscaled: dict[str, None] = {}
        self.tuning = KernelTimes()
        self._phase = phase
        self._said: Counter[tuple[str, str]] = Counter()
        self._tuned = 0

    def take(self, severity: str, text: str) -> None:
        """Take one message; `severity` is TensorRT's name of it."""
        if severity == "VERBOSE":
            self.tuning.take(text)
            if text.startswith(COSTS):
                self._tuned += 1
                self._tell(f"choosing kernels, layer {self._tuned}")
                return
        elif severity in ORDER:
            if match := UNSCALED.search(text):
                self.unscaled[match[1]] = None
            elif match := WEIGHTS.search(text):
                self._said[severity, f"{match[1]} weights do not fit FP16: {match[2]}"] += 1
            elif not any(known in text for known in EXPECTED):
                self._said[severity, text.strip()] += 1
            return
        if self._phase:
            for pattern, name in PHASES:
                if pattern.search(text):
                    self._tell(name)

    def _tell(self, phase: str) -> None:
        if self._phase:
            self._phase(phase)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings, each once, in the order of their first appearance."""
        return tuple(
            message_text(text, count) for (severity, text), count in self._said.items() if severity == "WARNING"
        )

    @property
    def errors(self) -> tuple[str, ...]:
        """Errors, each once."""
        return tuple(
            message_text(text, count) for (severity, text), count in self._said.items() if severity != "WARNING"
        )

    def mention(self, word: str) -> bool:
        """Return True if an error or a warning contains `word`."""
        return any(word in text for _, text in self._said)


def make_or_raise(make: Callable[[], Any], messages: Messages, problem: str = "TensorRT does not start") -> Any:
    """Return what `make` returns. BackendError with TensorRT's messages where that is nothing."""
    try:
        result = make()
    except TypeError:  # how pybind11 reports a factory that returned nothing
        result = None
    if result is None:
        said = "; ".join(messages.errors) or "it gives no reason"
        raise BackendError(f"{problem}: {said}", remedy="see quantkit doctor; the usual cause is an old driver")
    return result


def message_text(text: str, count: int) -> str:
    """Return a message on one line, with its number of occurrences."""
    line = " ".join(text.split())
    return line if count == 1 else f"{line} ({count} times)"


_LISTENING: list[Messages] = []


@contextlib.contextmanager
def capture_messages(trt: Any, messages: Messages) -> Iterator[Any]:
    """Send TensorRT's messages to `messages` meanwhile; yield the logger for builders and runtimes.

    There is one logger per process, because TensorRT keeps the first one as long as any object made with it exists;
    every listener receives all messages.
    """
    _LISTENING.append(messages)
    try:
        yield logger(trt)
    finally:
        _LISTENING.remove(messages)


@cache
def logger(trt: Any) -> Any:
    """Return the `ILogger` of the process."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            word = str(severity).rpartition(".")[2]
            for messages in tuple(_LISTENING):
                messages.take(word, msg)

    return Logger()
