"""The statistics file: safetensors, the same bytes for the same content.

counts/<tensor>     int64 [2048]          histogram of |x|
ranges              float64 [T, 3]        R, minimum, maximum, in the order of `tensors`
channels/<k>/range  float32 [C, 2]        minimum and maximum per channel of view k
channels/<k>/sums   int64 [C, 2, 4]       exact sums of x and x²: top position and three digits of 32 bits
metadata            one key, `quantkit`   canonical JSON: format, tensors, shared, channels, origin
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from quantkit.artifact import canonical_json, write_whole
from quantkit.errors import StatisticsError
from quantkit.histogram import BINS, Histogram
from quantkit.statistics.value import Channels, Origin, Statistics
from quantkit.values import Array

FORMAT = 1
KEY = "quantkit"


def statistics_bytes(statistics: Statistics) -> bytes:
    """The content of the file."""
    from safetensors.numpy import save

    names = list(statistics.histograms)
    histograms = statistics.histograms.values()
    arrays: dict[str, Array] = {f"counts/{n}": h.counts for n, h in statistics.histograms.items()}
    arrays["ranges"] = np.array([(h.range, h.minimum, h.maximum) for h in histograms], dtype=np.float64).reshape(-1, 3)
    for k, view in enumerate(statistics.channels):
        arrays[f"channels/{k}/range"] = np.stack([view.minimum, view.maximum], axis=1)
        arrays[f"channels/{k}/sums"] = view.sums
    document = {
        "format": FORMAT,
        "tensors": names,
        "shared": dict(statistics.shared),
        "channels": [{"tensor": v.tensor, "axis": v.axis, "elements": v.elements} for v in statistics.channels],
        "origin": statistics.origin.model_dump(mode="json", exclude_none=True),
    }
    return save(arrays, metadata={KEY: canonical_json(document)})


def write_statistics(statistics: Statistics, path: Path) -> None:
    """Write the file whole. OutputError."""
    write_whole(path, statistics_bytes(statistics))


def read_statistics(path: Path) -> Statistics:
    """Read a statistics file. StatisticsError where it is none, damaged, or of a newer format."""
    from safetensors import SafetensorError, safe_open

    remedy = "make it again with quantkit calibrate"
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(KEY)
            if text is None:
                raise StatisticsError(f"{path} is no statistics file", remedy=remedy)
            document = json.loads(text)
            if document.get("format") != FORMAT:
                raise StatisticsError(
                    f"{path} has format {document.get('format')}, this quantkit reads {FORMAT}",
                    remedy="use the quantkit that wrote it, or calibrate again",
                )
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        return assembled(document, arrays)
    except OSError as error:
        raise StatisticsError(f"{path}: {error.strerror or error}", remedy="check the path") from None
    except (
        SafetensorError,
        json.JSONDecodeError,
        ValidationError,
        KeyError,
        TypeError,
        ValueError,
    ) as error:
        raise StatisticsError(f"{path} is no statistics file, or is damaged: {error}", remedy=remedy) from None


def assembled(document: dict[str, Any], arrays: dict[str, Array]) -> Statistics:
    """Statistics from what the file holds. KeyError, ValueError, ValidationError."""
    names: list[str] = document["tensors"]
    ranges = typed(arrays["ranges"], np.float64, (len(names), 3))
    histograms = {
        name: Histogram(typed(arrays[f"counts/{name}"], np.int64, (BINS,)), *(float(v) for v in ranges[i]))
        for i, name in enumerate(names)
    }
    channels = []
    for k, view in enumerate(document["channels"]):
        low_high, sums = arrays[f"channels/{k}/range"], arrays[f"channels/{k}/sums"]
        count = len(low_high)
        typed(low_high, np.float32, (count, 2))
        typed(sums, np.int64, (count, 2, 4))
        channels.append(Channels(view["tensor"], view["axis"], low_high[:, 0], low_high[:, 1], sums, view["elements"]))
    origin = Origin.model_validate_json(canonical_json(document["origin"]))
    return Statistics(histograms, tuple(channels), dict(document["shared"]), origin)


def typed(array: Array, dtype: type, shape: tuple[int, ...]) -> Array:
    """`array`, if it is what it has to be. ValueError."""
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(f"an array is {array.dtype} {list(array.shape)}, not {np.dtype(dtype)} {list(shape)}")
    return array
