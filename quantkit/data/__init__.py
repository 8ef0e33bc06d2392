"""Calibration data: image folders, arrays, batches and Python iterables, as one stream of checked batches.

    open_data(source, inputs, …) → Feed → Portion(batch, names, …), Portion, …

A `Feed` knows what it will yield before it decodes anything: how many samples, their identity, the files behind them.
"""

from quantkit.data.feed import DataIdentity, Feed, FileStamp, Portion
from quantkit.data.opening import DataOptions, open_data
from quantkit.data.preflight import preflight

__all__ = [
    "DataIdentity",
    "DataOptions",
    "Feed",
    "FileStamp",
    "Portion",
    "open_data",
    "preflight",
]
