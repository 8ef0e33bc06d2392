"""The statistics file: safetensors, the same bytes for the same content.

counts/<tensor>     int64 [2048]          histogram of |x|
ranges              float64 [T, 3]        R, minimum, maximum, in the order of `tensors`
channels/<k>/range  float32 [C, 2]        minimum and maximum per channel of view k
channels/<k>/sums   int64 [C, 2, 4]       exact sums of x and x²: top position and three digits of 32 bits
metadata            one key, `quantkit`   canonical JSON: format, tensors, shared, channels, origin
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, ValidationError, model_validator

from quantkit.artifact import canonical_json, write_whole
from quantkit.errors import StatisticsError
from quantkit.frozen_record import FrozenRecord
from quantkit.histogram import BINS, Histogram
from quantkit.regular_file import refuse_irregular
from quantkit.statistics.statistics import Channels, Origin, Statistics
from quantkit.values import Array

KEY = "quantkit"
REMEDY = "create it again with quantkit calibrate"


class ChannelRecord(FrozenRecord):
    """The tensor and the axis whose channels the arrays `channels/<k>/…` describe."""

    tensor: str
    axis: int
    elements: Annotated[int, Field(ge=0)]


class StatisticsDocument(FrozenRecord):
    """The metadata of the file."""

    format: Literal[1]
    tensors: tuple[str, ...]
    shared: dict[str, str]
    channels: tuple[ChannelRecord, ...]
    origin: Origin

    @model_validator(mode="after")
    def names_are_known(self) -> StatisticsDocument:
        """Check that every name is one of the tensors, and that no tensor is named twice."""
        known = set(self.tensors)
        named = {*self.shared, *self.shared.values(), *(view.tensor for view in self.channels)}
        if len(known) != len(self.tensors) or not named <= known:
            raise ValueError("tensors are named twice, or not listed")
        return self


def statistics_bytes(statistics: Statistics) -> bytes:
    """Return the content of the file."""
    from safetensors.numpy import save

    names = list(statistics.histograms)
    histograms = statistics.histograms.values()
    arrays: dict[str, Array] = {f"counts/{n}": h.counts for n, h in statistics.histograms.items()}
    arrays["ranges"] = np.array([(h.range, h.minimum, h.maximum) for h in histograms], dtype=np.float64).reshape(-1, 3)
    for k, view in enumerate(statistics.channels):
        arrays[f"channels/{k}/range"] = np.stack([view.minimum, view.maximum], axis=1)
        arrays[f"channels/{k}/sums"] = view.sums
    document = StatisticsDocument(
        format=1,
        tensors=tuple(names),
        shared={pool: source for pool, source in statistics.shared.items() if {pool, source} <= set(names)},
        channels=tuple(ChannelRecord(tensor=v.tensor, axis=v.axis, elements=v.elements) for v in statistics.channels),
        origin=statistics.origin,
    )
    return save(arrays, metadata={KEY: canonical_json(document.model_dump(mode="json", exclude_none=True))})


def write_statistics(statistics: Statistics, path: str | os.PathLike[str]) -> None:
    """Write the file atomically. OutputError."""
    write_whole(Path(path), statistics_bytes(statistics))


def read_statistics(path: str | os.PathLike[str]) -> Statistics:
    """Read a statistics file. StatisticsError where it is another file, damaged, or of a newer format."""
    from safetensors import SafetensorError, safe_open

    try:
        refuse_irregular(path)
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(KEY)
            if text is None:
                raise StatisticsError(f"{path} is not a statistics file", remedy=REMEDY)
            document = StatisticsDocument.model_validate_json(text)
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        return assemble_statistics(document, arrays)
    except OSError as error:
        raise StatisticsError(f"{path}: {error.strerror or error}", remedy="check the path") from None
    except ValidationError as error:
        first = error.errors()[0]
        fault = f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")
        raise StatisticsError(f"{path} is not a statistics file, or is damaged: {fault}", remedy=REMEDY) from None
    except (SafetensorError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise StatisticsError(f"{path} is not a statistics file, or is damaged: {error}", remedy=REMEDY) from None


def assemble_statistics(document: StatisticsDocument, arrays: dict[str, Array]) -> Statistics:
    """Return statistics from the content of a file. KeyError or ValueError where it is inconsistent."""
    ranges = check_typed(arrays["ranges"], np.float64, (len(document.tensors), 3))
    if not np.isfinite(ranges).all() or (ranges[:, 0] < 0).any() or (ranges[:, 1] > ranges[:, 2]).any():
        raise ValueError("a range is invalid")
    histograms = {}
    for i, name in enumerate(document.tensors):
        counts = check_typed(arrays[f"counts/{name}"], np.int64, (BINS,))
        if (counts < 0).any():
            raise ValueError(f"a count of {name!r} is negative")
        histograms[name] = Histogram(counts, *(float(v) for v in ranges[i]))
    channels = []
    for k, view in enumerate(document.channels):
        low_high, sums = arrays[f"channels/{k}/range"], arrays[f"channels/{k}/sums"]
        count = len(low_high)
        check_typed(low_high, np.float32, (count, 2))
        check_typed(sums, np.int64, (count, 2, 4))
        channels.append(Channels(view.tensor, view.axis, low_high[:, 0], low_high[:, 1], sums, view.elements))
    return Statistics(histograms, tuple(channels), document.shared, document.origin)


def check_typed(array: Array, dtype: type, shape: tuple[int, ...]) -> Array:
    """Return `array` if it has the type and the shape. ValueError."""
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(f"an array is {array.dtype} {list(array.shape)}, not {np.dtype(dtype)} {list(shape)}")
    return array
