"""Statistics of a calibration pass: a histogram for each tensor, sums per channel, and their origin."""

from quantkit.statistics.collector import Collector, histogram_of
from quantkit.statistics.file import (
    given_statistics,
    parse_statistics,
    read_statistics,
    statistics_bytes,
    write_statistics,
)
from quantkit.statistics.merging import merge_statistics
from quantkit.statistics.statistics import Channels, Origin, Statistics

__all__ = [
    "Channels",
    "Collector",
    "Origin",
    "Statistics",
    "given_statistics",
    "histogram_of",
    "merge_statistics",
    "parse_statistics",
    "read_statistics",
    "statistics_bytes",
    "write_statistics",
]
