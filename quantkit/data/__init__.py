"""Calibration data: image folders, arrays, batches and Python iterables, as a stream of checked batches.

    open_data(source, inputs, …) → Feed → Portion(batch, names, …), Portion, …

A `Feed` knows what it will yield before it decodes anything: the number of samples, their identity, their files.
"""

from quantkit.data.feed import DataIdentity, Feed, Portion
from quantkit.data.opening import DataOptions, open_data
from quantkit.data.preflight import preflight
from quantkit.regular_file import FileStamp

__all__ = [
    "DataIdentity",
    "DataOptions",
    "Feed",
    "FileStamp",
    "Portion",
    "open_data",
    "preflight",
]
