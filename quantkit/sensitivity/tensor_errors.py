"""Quantization errors of single tensors: measured on their values, or estimated from histograms without data.

    activations, with data        every value of the float network's tensors
    activations, statistics only  the histogram: values spread evenly within each bin, as the rule `mse` assumes
    weights                       every value, with the scales of their channels

Each error comes with that of the best scale of the same kind: a large difference means that the scale does not fit its
tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from quantkit.backends.session import SessionOpener, open_session
from quantkit.numerics import E4M3_LARGEST, LEVELS, noise_decibels, noise_share
from quantkit.qdq.grid import Grid, integer_limits
from quantkit.qdq.partial import PartialQuantization, QuantizedWeight
from quantkit.rules.squared_error import least_error_threshold, mean_square, places_in, squared_error
from quantkit.sensitivity.fp8_errors import (
    CODES,
    best_factor_share,
    count_saturated,
    estimate_fp8_error,
    used_codes,
)
from quantkit.sensitivity.result import TensorError
from quantkit.statistics.exact_sum import ExactSum
from quantkit.values import QuantizedType

if TYPE_CHECKING:
    from quantkit.data import Feed
    from quantkit.histogram import Histogram
    from quantkit.values import Array

FACTORS = tuple(2.0**k for k in range(-3, 4))
"""Factors applied to a scale in the search for a better one; 1 is the scale itself."""
FINE = 16
"""Bins per quantization step in which values are counted for that search."""


@dataclass(frozen=True, slots=True)
class QuantizedActivation:
    """A quantized activation with the node that produces it, its grid, and the rule behind its scale."""

    name: str
    node: str
    grid: Grid
    rule: str


@dataclass(frozen=True, slots=True)
class SquaredErrors:
    """Means over a tensor's values. signal: of squares. error: of squared errors. best: those of the best scale."""

    signal: float
    error: float
    best: float


def estimate_activation_error(tensor: QuantizedActivation, histogram: Histogram) -> TensorError:
    """Return the error of an activation, estimated from its histogram."""
    assert tensor.grid.scale is not None
    scale = float(tensor.grid.scale.max())
    places, counts = places_in(histogram), histogram.counts
    step = scale if scale > 0 else math.inf
    if tensor.grid.is_fp8:
        return estimate_fp8_activation(tensor, histogram, scale)
    used = np.unique(np.minimum(np.rint(places[counts > 0] / step), LEVELS))
    sides = [np.rint(max(end, 0.0) / step) for end in (histogram.maximum, -histogram.minimum)]
    levels = int((used == 0).sum()) + sum(int(((used > 0) & (used <= side)).sum()) for side in sides)
    signal, error = mean_square(histogram), squared_error(histogram, scale * LEVELS)
    best = min(error, squared_error(histogram, least_error_threshold(histogram)))
    return estimated_error(tensor, histogram, SquaredErrors(signal, error, best), levels)


def estimate_fp8_activation(tensor: QuantizedActivation, histogram: Histogram, scale: float) -> TensorError:
    """Return the error of an activation in FP8, estimated from its histogram."""
    places, counts = places_in(histogram), histogram.counts
    error, best = estimate_fp8_error(histogram, scale)
    signal = mean_square(histogram)
    used = used_codes(places[counts > 0].astype(np.float32), tensor.grid)
    signs = sum(end > 0 for end in (histogram.maximum, -histogram.minimum))
    return estimated_error(tensor, histogram, SquaredErrors(signal, error, best), int(used.sum()) * max(signs, 1))


def estimated_error(
    tensor: QuantizedActivation, histogram: Histogram, squares: SquaredErrors, levels: int
) -> TensorError:
    """Return the error of an activation that was estimated from its histogram. levels: that values take."""
    assert tensor.grid.scale is not None
    scale = float(tensor.grid.scale.max())
    most = scale * (E4M3_LARGEST if tensor.grid.is_fp8 else LEVELS)
    beyond = (places_in(histogram) > most).mean(axis=1) @ histogram.counts
    return TensorError(
        name=tensor.name,
        node=tensor.node,
        weight=False,
        scale=scale,
        rule=tensor.rule,
        sqnr_db=noise_decibels(noise_share(squares.error, squares.signal)),
        clipped=float(beyond) / max(histogram.elements, 1),
        levels=levels,
        best_db=noise_decibels(noise_share(squares.best, squares.signal)),
        estimated=True,
    )


class ActivationErrorSums:
    """Accumulates the error of one activation batch by batch."""

    def __init__(self, tensor: QuantizedActivation) -> None:
        self._tensor, self._fp8 = tensor, tensor.grid.is_fp8
        low, high = (0, CODES - 1) if self._fp8 else integer_limits(tensor.grid.type)
        self._used = np.zeros(high - low + 1, bool)
        self._signal, self._noise = ExactSum(), ExactSum()
        self._clipped = self._elements = 0
        self._reach = FINE * (high - low + 1) * 4
        self._counts = np.zeros(2 * self._reach + 1, np.int64)

    def add(self, values: Array) -> None:
        """Add the values of a batch."""
        grid, wide = self._tensor.grid, values.astype(np.float32, copy=False)
        assert grid.scale is not None
        assert grid.zero is not None
        found = grid.round_trip(wide)
        self._signal.add(energy(wide))
        self._noise.add(energy(wide - found))
        self._elements += wide.size
        self._clipped += count_clipped(wide, grid)
        self._used |= used_codes(found, grid) if self._fp8 else used_integers(found, grid)
        parts = np.rint(wide * (FINE / shape_for_channels(grid.scale, grid, wide.ndim)))
        parts = np.clip(parts, -self._reach, self._reach).astype(np.int64) + self._reach
        self._counts += np.bincount(parts.reshape(-1), minlength=len(self._counts))

    def error(self) -> TensorError:
        """Return the error over all batches."""
        tensor = self._tensor
        assert tensor.grid.scale is not None
        ratio = noise_share(self._noise.value, self._signal.value)
        return TensorError(
            name=tensor.name,
            node=tensor.node,
            weight=False,
            scale=float(tensor.grid.scale.max()),
            rule=tensor.rule,
            sqnr_db=noise_decibels(ratio),
            clipped=self._clipped / max(self._elements, 1),
            levels=int(self._used.sum()),
            best_db=noise_decibels(ratio * self._best()),
        )

    def state(self) -> Mapping[str, Any]:
        """Return the sums so far as plain values; of the counts those between the first and the last that is not 0."""
        places = np.flatnonzero(self._counts)
        first, stop = (int(places[0]), int(places[-1]) + 1) if places.size else (0, 0)
        counts = self._counts[first:stop]
        return {
            "energies": [self._signal.state(), self._noise.state()],
            "values": [self._clipped, self._elements],
            "used": np.packbits(self._used),
            "first": first,
            "counts": counts.astype(np.min_scalar_type(int(counts.max(initial=0)))),
        }

    def extend(self, state: Mapping[str, Any]) -> None:
        """Add the sums of other batches. ValueError where they are of another grid."""
        for own, other in zip((self._signal, self._noise), state["energies"], strict=True):
            own.extend(other)
        clipped, elements = map(int, state["values"])
        self._clipped, self._elements = self._clipped + clipped, self._elements + elements
        self._used |= np.unpackbits(state["used"], count=len(self._used)).astype(bool)
        first, counts = int(state["first"]), state["counts"]
        self._counts[first : first + len(counts)] += counts.astype(np.int64)

    @property
    def seen(self) -> bool:
        """True if there were values."""
        return self._elements > 0

    def _best(self) -> float:
        """Return the noise with the best of the tried scales as a fraction of that with the actual scale."""
        grid = self._tensor.grid
        assert grid.zero is not None
        places = np.arange(-self._reach, self._reach + 1) / FINE
        if self._fp8:
            return best_factor_share(places, self._counts)
        low, high = integer_limits(grid.type)
        zero = float(np.median(grid.zero))
        noises = []
        for factor in FACTORS:
            codes = np.clip(np.rint(places / factor), low - zero, high - zero)
            noises.append(float(np.square(places - codes * factor) @ self._counts))
        own = noises[FACTORS.index(1.0)]
        return min(noises) / own if own else 1.0


class ActivationMeter:
    """Measures activations of the float network, on any parts of the data.

    Measured are the activations that onnxruntime can return as outputs.
    """

    def __init__(
        self,
        variants: PartialQuantization,
        tensors: Iterable[QuantizedActivation],
        threads: int,
        open_session: SessionOpener = open_session,
    ) -> None:
        self._tensors = {variants.float_tensor(tensor.name): tensor for tensor in tensors}
        plain = variants.with_layers((), also=tuple(self._tensors))
        inputs = {i.name for i in plain.inputs}
        self._run = open_session(plain, [name for name in self._tensors if name not in inputs], threads=threads)

    def start(self) -> dict[str, ActivationErrorSums]:
        """Return sums of nothing yet, by the names of the float tensors."""
        return {name: ActivationErrorSums(tensor) for name, tensor in self._tensors.items()}

    def collect(
        self, feed: Feed, count: Callable[[int, int | None], None] = lambda _, __: None
    ) -> dict[str, ActivationErrorSums]:
        """Return the sums over all samples of a feed. count: called with the samples seen, and with all of them."""
        run, found, done = self._run.runner(), self.start(), 0
        for portion in feed.portions():
            done += portion.samples
            count(done, feed.samples)
            for name, values in {**portion.batch, **run(portion.batch)}.items():
                if name in found:
                    found[name].add(values)
        return found


def weight_error(weight: QuantizedWeight, rule: str) -> TensorError:
    """Return the exact error of a weight. The best scales are max|w|/127, in FP8 /448, for each of its channels."""
    grid = weight.grid
    assert grid.scale is not None
    values = weight.values.astype(np.float32, copy=False)
    axis = grid.axis % values.ndim if grid.scale.size > 1 else None
    others = None if axis is None else tuple(d for d in range(values.ndim) if d != axis)
    amax = np.abs(values).max(axis=others, initial=0.0)
    best_type = QuantizedType.FP8 if grid.is_fp8 else QuantizedType.INT8
    scale = np.maximum(np.asarray(amax / np.float32(best_type.largest), np.float32), np.finfo(np.float32).tiny)
    ideal = replace(grid, type=best_type.stored, scale=scale, zero=np.zeros(scale.shape, np.int64), axis=axis or 0)
    signal, noise = energy(values), energy(values - weight.quantized)
    best = min(noise, energy(values - ideal.round_trip(values)))
    if grid.is_fp8:
        levels = int(used_codes(weight.quantized, grid).sum())
    else:
        levels = int(np.unique(np.rint(weight.quantized / shape_for_channels(grid.scale, grid, values.ndim))).size)
    return TensorError(
        name=weight.name,
        node=weight.node,
        weight=True,
        scale=float(grid.scale.max()),
        rule=rule,
        sqnr_db=noise_decibels(noise_share(noise, signal)),
        clipped=count_clipped(values, grid) / max(values.size, 1),
        levels=levels,
        best_db=noise_decibels(noise_share(best, signal)),
    )


def used_integers(values: Array, grid: Grid) -> Array:
    """Return which integers of its type the quantized values take, the least one first: bool."""
    assert grid.scale is not None
    assert grid.zero is not None
    low, high = integer_limits(grid.type)
    scale, zero = shape_for_channels(grid.scale, grid, values.ndim), shape_for_channels(grid.zero, grid, values.ndim)
    codes = (np.rint(values / scale) + zero - low).astype(np.int64)
    return np.bincount(codes.reshape(-1), minlength=high - low + 1).astype(bool)


def count_clipped(values: Array, grid: Grid) -> int:
    """Count the values outside the grid: beyond ±127·scale if it is symmetric, ±448·scale in FP8."""
    if grid.is_fp8:
        return count_saturated(values, grid)
    assert grid.scale is not None
    assert grid.zero is not None
    low, high = integer_limits(grid.type)
    scale, zero = shape_for_channels(grid.scale, grid, values.ndim), shape_for_channels(grid.zero, grid, values.ndim)
    middle = (low + high + 1) // 2
    least = np.where(zero == middle, low + 1, low)
    outside = (values < (least - zero) * scale) | (values > (high - zero) * scale)
    return int(np.count_nonzero(outside))


def shape_for_channels(values: Array, grid: Grid, rank: int) -> Array:
    """Return one value, or one per channel, as float32 in a shape that broadcasts over a tensor of this rank."""
    flat = np.asarray(values, np.float32)
    if flat.size == 1:
        return flat.reshape(())
    shape = [1] * rank
    shape[grid.axis] = -1
    return flat.reshape(shape)


def energy(values: Array) -> float:
    """Return Σ x²."""
    return float(np.square(values, dtype=np.float64).sum())
