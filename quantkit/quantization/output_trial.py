"""The trial of a quantized network on the data, or the ranges, that it was made from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from quantkit.backends.trial_run import Ranges, Trial, scale_ranges, try_network
from quantkit.data import open_data
from quantkit.data.opening import whole_batches
from quantkit.graph import Model
from quantkit.preprocess import Preprocess
from quantkit.quantization.network_statistics import NetworkSamples
from quantkit.quantization.scales import QuantizationScales
from quantkit.values import Batch

if TYPE_CHECKING:
    import onnx

SAMPLES = 8


def try_quantized(
    proto: onnx.ModelProto, source: Model, target: Path, data: NetworkSamples | None, scales: QuantizationScales
) -> Trial:
    """Run a quantized network before it is written, and compare it with `source`. ModelError, DataError."""
    made = replace(source, proto=proto, sha256="")
    feeds = None if data is None else first_batch(source, data)
    return try_network(target, made, source, feeds, statistics_ranges(scales) or scale_ranges(scales.scales))


def first_batch(model: Model, data: NetworkSamples) -> Batch | None:
    """Return the first few samples; None if they come from an iterator, which cannot be read again. DataError."""
    spec = data.preprocess
    if isinstance(data.source, Iterator) or not isinstance(spec, Preprocess):
        return None
    limit = whole_batches(min(data.options.limit or SAMPLES, SAMPLES), model.inputs)
    feed, _ = open_data(data.source, model.inputs, spec, replace(data.options, limit=limit))
    return next((portion.batch for portion in feed.portions()), None)


def statistics_ranges(scales: QuantizationScales) -> Ranges:
    """Return the ranges of tensors from statistics; empty without them."""
    found = scales.statistics.histograms if scales.statistics else {}
    return {name: (histogram.minimum, histogram.maximum) for name, histogram in found.items()}
