"""What a calibration pass remembers: a histogram per tensor, sums per channel, and where they came from."""

from quantkit.statistics.collector import Collector, histogram_of
from quantkit.statistics.file import read_statistics, statistics_bytes, write_statistics
from quantkit.statistics.merging import merge_statistics
from quantkit.statistics.statistics import Channels, Origin, Statistics

__all__ = [
    "Channels",
    "Collector",
    "Origin",
    "Statistics",
    "histogram_of",
    "merge_statistics",
    "read_statistics",
    "statistics_bytes",
    "write_statistics",
]
