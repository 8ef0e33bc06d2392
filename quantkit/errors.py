"""The tree of all errors. Every error says what is wrong, where, and one thing to do next.

QuantkitError            exit code 1
├── UsageError           exit code 2: the call itself is wrong
├── ModelError           the ONNX model cannot be read or run
├── DataError            images, arrays, batches, or the values in them
├── PreprocessError      the preprocessing spec, or a spec that does not fit the model
├── StatisticsError      a statistics file, or statistics that cannot be merged
├── TableError           a calibration table
├── ShardError           shards that are missing, there twice, or of different runs
├── StaleError           an artifact that belongs to another model, data set or rule
├── OutputError          a file cannot be written
├── BackendError         a library or a device is missing
└── Interrupted          exit code 130: stopped by the user; all files are intact
"""

from __future__ import annotations

from collections.abc import Sequence

from quantkit.keywords.argument_names import in_python


class QuantkitError(Exception):
    """Base of all quantkit errors: `problem` says what is wrong, `remedy` one thing to do next.

    Both name options as the command line does (`--force`); the text of the exception, which Python shows, names
    arguments (`force=True`). details: lines below the problem, such as every sample that cannot be read.
    """

    exit_code = 1

    def __init__(self, problem: str, *, remedy: str, details: Sequence[str] = ()) -> None:
        self.headline = f"{problem}:" if details else problem
        self.details = tuple(details)
        self.problem = "\n    ".join((self.headline, *details))
        self.remedy = remedy
        super().__init__(f"{self.problem}\n  → {remedy}")

    def __str__(self) -> str:
        return in_python(super().__str__())

    @property
    def summary(self) -> str:
        """The problem in one line, as part of a note."""
        return f"{self.headline} {'; '.join(self.details)}" if self.details else self.problem


class UsageError(QuantkitError):
    """The call is wrong: an unknown option value, or two that contradict each other."""

    exit_code = 2


class ModelError(QuantkitError):
    """The ONNX model cannot be read, or cannot be run as asked."""


class DataError(QuantkitError):
    """Calibration data is missing, unreadable, of the wrong shape, or holds NaN or Inf."""


class PreprocessError(QuantkitError):
    """The preprocessing spec is invalid, or does not fit the model's input."""


class StatisticsError(QuantkitError):
    """A statistics file is damaged, or statistics cannot be merged."""


class ShardError(QuantkitError):
    """A shard of a run is missing, there twice, or belongs to another run."""


class TableError(QuantkitError):
    """A calibration table is malformed, or cannot be written in TensorRT's format."""


class StaleError(QuantkitError):
    """An existing artifact belongs to another model, data set, preprocessing or rule."""


class OutputError(QuantkitError):
    """A file cannot be written."""


class BackendError(QuantkitError):
    """A library, an execution provider or a device is missing."""


class Interrupted(QuantkitError):  # noqa: N818 (an interruption is not an error)
    """The user stopped the run; the files on disk are intact."""

    exit_code = 130


def first_line(error: BaseException) -> str:
    """Return the first line of a library's message; the type of the error if the message is empty."""
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__


class UnreadableError(Exception):
    """A sample cannot be decoded; the message is the reason. It becomes a DataError, or the sample is left out."""
