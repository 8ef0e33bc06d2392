"""The statistics file: sealed safetensors, the same bytes for the same content.

counts/<tensor>     int64 [2048]          histogram of |x|
ranges              float64 [T, 3]        R, minimum, maximum, in the order of `tensors`
channels/<k>/range  float32 [C, 2]        minimum and maximum per channel of view k
channels/<k>/sums   int64 [C, 2, 4]       exact sums of x and x²: top position and three digits of 32 bits
samples             uint64 [N]            first 64 bits of the digests of samples, ascending; absent in tensorrt mode
chain               uint8                 of a shard: the digests of its samples in order, a mark after each batch
seams/firsts        float64 [T]           of a shard in tensorrt mode: quantkit.statistics.seams
seams/low           int64 [T, 12]
sha256              uint8 [32]            over the file with zeros here; absent in files of quantkit 0.1
metadata            one key, `quantkit`   canonical JSON: format, tensors, shared, channels, origin
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from quantkit.artifact import canonical_json, sha256_of, write_whole
from quantkit.document import DocumentType
from quantkit.errors import ShardError, StatisticsError
from quantkit.frozen_record import FrozenRecord
from quantkit.histogram import BINS, Histogram, HistogramMode
from quantkit.kernel import DIGIT_BITS, DIGITS, EMPTY, grow_range
from quantkit.numerics import float32
from quantkit.paths import given_path
from quantkit.regular_file import read_regular
from quantkit.sharding import ShardRecord
from quantkit.statistics.sealed import check_typed, open_sealed, sealed_bytes
from quantkit.statistics.seams import Seam, seam_arrays, take_seams
from quantkit.statistics.statistics import Channels, Origin, Statistics
from quantkit.values import Array

KEY = "quantkit"
REMEDY = "create it again with quantkit calibrate"
LARGEST = 1 << 62
"""Largest number of values or samples, which still has room in 64 bits."""
LARGEST_AXIS = 64
"""Largest number of axes of an array in numpy."""
WIDEST_RANGE, NARROWEST_RANGE = 2.0**129, 2.0**-149
"""Limits of R: activations are float32, and R is less than twice the largest of them."""
HIGHEST_DIGIT, LOWEST_DIGIT = 9, -10
"""Limits of the top position of an exact sum of x or x²: x is float32, so sums are 0, or between 2^-298 and 2^318."""


class ChannelRecord(FrozenRecord):
    """The tensor and the axis whose channels the arrays `channels/<k>/…` describe."""

    tensor: str
    axis: Annotated[int, Field(ge=-LARGEST_AXIS, lt=LARGEST_AXIS)]
    elements: Annotated[int, Field(ge=1, lt=LARGEST)]


class StatisticsDocument(FrozenRecord):
    """The metadata of the file."""

    format: Literal[1]
    tensors: tuple[str, ...]
    shared: dict[str, str]
    channels: tuple[ChannelRecord, ...]
    unscalable: tuple[str, ...] | None = None
    """None if there are none, as in files of older versions."""
    origin: Origin
    shard: ShardRecord | None = None
    """The part of a run that the file holds; None for a whole run."""

    @model_validator(mode="after")
    def names_are_known(self) -> StatisticsDocument:
        """Check that every name is one of the tensors, and that no tensor or view is named twice."""
        known, views = set(self.tensors), [(view.tensor, view.axis) for view in self.channels]
        named = {*self.shared, *self.shared.values(), *(tensor for tensor, _ in views)}
        listed = (*self.tensors, *(self.unscalable or ()))
        if len(set(listed)) != len(listed) or len(set(views)) != len(views) or not named <= known:
            raise ValueError("tensors are named twice, or not listed")
        return self

    @model_validator(mode="after")
    def origin_is_whole(self) -> StatisticsDocument:
        """Check that the origin has a digest, and counts that can be."""
        origin = self.origin
        if re.fullmatch("[0-9a-f]{64}", origin.data) is None:
            raise ValueError("origin.data is no sha256")
        counts = (origin.samples, *(n for n in (origin.batch_size, origin.batches) if n is not None))
        least = 0 if self.shard else 1  # all samples of a shard may have been left out
        if not (all(least <= count < LARGEST for count in counts) and 0 <= origin.slice < LARGEST):
            raise ValueError("the origin counts no samples, or too many")
        return self


DOCUMENT: DocumentType[StatisticsDocument] = DocumentType(
    StatisticsDocument, "a description of statistics", StatisticsError, REMEDY
)


def statistics_bytes(statistics: Statistics) -> bytes:
    """Return the content of the file."""
    names = list(statistics.histograms)
    histograms = statistics.histograms.values()
    arrays: dict[str, Array] = {f"counts/{n}": h.counts for n, h in statistics.histograms.items()}
    arrays["ranges"] = np.array([(h.range, h.minimum, h.maximum) for h in histograms], dtype=np.float64).reshape(-1, 3)
    for k, view in enumerate(statistics.channels):
        arrays[f"channels/{k}/range"] = np.stack([view.minimum, view.maximum], axis=1)
        arrays[f"channels/{k}/sums"] = view.sums
        if view.gain is not None:
            arrays[f"channels/{k}/gain"] = view.gain
    if statistics.samples is not None:
        arrays["samples"] = statistics.samples
    if statistics.chain is not None:
        arrays["chain"] = np.frombuffer(statistics.chain, np.uint8)
    if statistics.seams is not None:
        arrays |= seam_arrays([statistics.seams[name] for name in names])
    document = StatisticsDocument(
        format=1,
        tensors=tuple(names),
        shared={pool: source for pool, source in statistics.shared.items() if {pool, source} <= set(names)},
        channels=tuple(ChannelRecord(tensor=v.tensor, axis=v.axis, elements=v.elements) for v in statistics.channels),
        unscalable=statistics.unscalable or None,
        origin=statistics.origin,
        shard=statistics.shard,
    )
    return sealed_bytes(arrays, KEY, canonical_json(document.model_dump(mode="json", exclude_none=True)))


def write_statistics(statistics: Statistics, path: str | os.PathLike[str]) -> None:
    """Write the file atomically. OutputError."""
    write_whole(Path(path), statistics_bytes(statistics))


def read_statistics(path: str | os.PathLike[str]) -> Statistics:
    """Read a statistics file. StatisticsError where it is another file, damaged, or of a newer format."""
    file_path = given_path(path, "the statistics file")
    try:
        content = read_regular(file_path)
    except OSError as error:
        raise StatisticsError(f"{path}: {error.strerror or error}", remedy="check the path") from None
    return parse_statistics(content, os.fsdecode(file_path))


def given_statistics(given: Statistics | str | os.PathLike[str]) -> Statistics:
    """Return the statistics of a whole run, given as they are or by path. StatisticsError; ShardError for a shard."""
    statistics = given if isinstance(given, Statistics) else read_statistics(given)
    if statistics.shard is not None:
        name = "statistics" if isinstance(given, Statistics) else os.fsdecode(given)
        raise ShardError(
            f"{name}: one shard ({statistics.shard.shard}) is not the whole run",
            remedy="merge all shards: quantkit stats merge FOLDER -o FILE.stats.safetensors",
        )
    return statistics


def parse_statistics(content: bytes, path: str) -> Statistics:
    """Return the statistics in the content of a file; `path` names it in errors. StatisticsError."""
    try:
        file = open_sealed(content, KEY)
        document = DOCUMENT.parse(file.text, f"{path} is not a statistics file, or is damaged: its metadata")
        return assemble_statistics(document, file.arrays)
    except KeyError as error:
        raise StatisticsError(f"{path} is not a statistics file, or is damaged: no {error}", remedy=REMEDY) from None
    except ValueError as error:
        raise StatisticsError(f"{path} is not a statistics file, or is damaged: {error}", remedy=REMEDY) from None


def assemble_statistics(document: StatisticsDocument, arrays: dict[str, Array]) -> Statistics:
    """Return statistics from the content of a file. KeyError or ValueError where it is inconsistent."""
    ranges = check_typed(arrays.pop("ranges"), np.float64, (len(document.tensors), 3))
    histograms = {}
    for name, (range_, low, high) in zip(document.tensors, ranges.tolist(), strict=True):
        histogram = Histogram(check_typed(arrays.pop(f"counts/{name}"), np.int64, (BINS,)), range_, low, high)
        check_histogram(histogram, name, invariant=document.origin.histogram is HistogramMode.INVARIANT)
        histograms[name] = histogram
    channels = []
    for k, record in enumerate(document.channels):
        low_high, sums = arrays.pop(f"channels/{k}/range"), arrays.pop(f"channels/{k}/sums")
        check_typed(low_high, np.float32, (len(sums) if sums.ndim else 0, 2))
        check_typed(sums, np.int64, (len(low_high), 2, DIGITS + 1))
        gain = arrays.pop(f"channels/{k}/gain", None)
        view = Channels(record.tensor, record.axis, low_high[:, 0], low_high[:, 1], sums, record.elements, gain)
        check_channels(view, histograms[view.tensor])
        channels.append(view)
    samples = arrays.pop("samples", None)
    if samples is not None:
        check_typed(samples, np.uint64, (samples.size,))
        if (samples[1:] < samples[:-1]).any():
            raise ValueError("the list of samples is in disorder")
    chain, seams = take_order(document, histograms, arrays) if document.shard else (None, None)
    if arrays:
        raise ValueError(f"it holds an unknown array {next(iter(arrays))!r}")
    return Statistics(
        histograms,
        tuple(channels),
        document.shared,
        document.origin,
        samples,
        document.unscalable or (),
        document.shard,
        chain,
        seams,
    )


def take_order(
    document: StatisticsDocument, histograms: dict[str, Histogram], arrays: dict[str, Array]
) -> tuple[bytes, dict[str, Seam] | None]:
    """Return the chain and the seams of a shard, and remove their arrays. KeyError or ValueError."""
    chain = arrays.pop("chain")
    text = check_typed(chain, np.uint8, (chain.size,)).tobytes()
    if document.origin.histogram is HistogramMode.INVARIANT:
        return text, None
    if sha256_of(text) != document.origin.order:
        raise ValueError("the digests of its samples are not those of its order")
    return text, take_seams(histograms, arrays)


def check_histogram(histogram: Histogram, name: str, *, invariant: bool) -> None:
    """Check that a histogram is one of float32 activations: its range, its extremes, its counts. ValueError."""
    range_, low, high = histogram.range, histogram.minimum, histogram.maximum
    fits = range_ == 0.0 or NARROWEST_RANGE <= range_ <= WIDEST_RANGE
    floats = low == float32(low) and high == float32(high)  # NaN is not equal to itself
    if not (fits and floats and low <= high and histogram.amax <= range_):
        raise ValueError(f"the range of {name!r} is none: {low:g} … {high:g} in {range_:g}")
    if invariant and range_ != grow_range(0.0, histogram.amax, invariant=True):
        raise ValueError(f"the range of {name!r} is not that of its values: {range_:g} for {histogram.amax:g}")
    total = histogram.counts.astype(np.float64).sum()
    if (histogram.counts < 0).any() or not 1 <= total < LARGEST:
        raise ValueError(f"the counts of {name!r} are none")


def check_channels(view: Channels, histogram: Histogram) -> None:
    """Check that the figures of channels are those of the tensor with that histogram. ValueError."""
    extremes = (float(view.minimum.min(initial=np.inf)), float(view.maximum.max(initial=-np.inf)))
    if extremes != (histogram.minimum, histogram.maximum) or (view.minimum > view.maximum).any():
        raise ValueError(f"the channels of {view.tensor!r} have another range than the tensor")
    if view.elements * len(view.sums) != histogram.elements:
        raise ValueError(f"the channels of {view.tensor!r} have another number of values than the tensor")
    if view.gain is not None:
        gain = check_typed(view.gain, np.float32, (len(view.sums),))
        if not np.isfinite(gain).all() or (gain < 0.0).any():
            raise ValueError(f"the gains of {view.tensor!r} are none")
    tops, digits = view.sums[..., 0], view.sums[..., 1:]
    empty = tops == EMPTY
    if not (empty | ((tops >= LOWEST_DIGIT) & (tops <= HIGHEST_DIGIT))).all() or (digits[empty] != 0).any():
        raise ValueError(f"a sum of {view.tensor!r} is no float")
    if (np.abs(digits.astype(np.float64)) > view.elements * 2.0**DIGIT_BITS).any():
        raise ValueError(f"a sum of {view.tensor!r} is larger than its values can be")
