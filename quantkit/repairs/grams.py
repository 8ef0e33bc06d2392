"""Gram matrices H = Σ x xᵀ of what a weighted operator reads, batch by batch: memory does not grow with the samples."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from quantkit.errors import DataError
from quantkit.repairs.blas_threads import blas_threads
from quantkit.repairs.weighted_layers import PatchGeometry

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from quantkit.values import Array

POSITIONS = 128
"""Most patches of one sample, at fixed random positions: neighbouring patches are nearly the same."""
ROWS = 1 << 13
"""Patches that are multiplied in one step."""


class GramAccumulator:
    """Adds up H [G, K, K] of the patches that a layer of this geometry reads."""

    def __init__(self, geometry: PatchGeometry, *, positions: int | None = POSITIONS) -> None:
        self._geometry, self._positions = geometry, positions
        self._total: NDArray[np.float64] | None = None
        self.patches = 0

    def add(self, batch: Array) -> None:
        """Add activations: [N, C, spatial …] for a convolution, otherwise channels along the geometry's axis."""
        patches = gather_patches(batch, self._geometry, self._positions)
        groups, count, size = patches.shape
        if self._total is None:
            self._total = np.zeros((groups, size, size))
        for start in range(0, count, ROWS):
            part = patches[:, start : start + ROWS]
            # float32 products of a part, unless they are too large; float64 sums of parts.
            with np.errstate(over="ignore", invalid="ignore"), blas_threads(size):
                squares = np.matmul(part.transpose(0, 2, 1), part) if groups > 1 else (part[0].T @ part[0])[None]
                if not np.isfinite(squares).all():
                    wide = part.astype(np.float64)
                    squares = np.matmul(wide.transpose(0, 2, 1), wide)
            self._total += squares
        self.patches += count

    @property
    def value(self) -> NDArray[np.float64]:
        """Return H so far, [G, K, K]. DataError where nothing was added, or something that is not finite."""
        if self._total is None or not self.patches:
            raise DataError("no activations were seen", remedy="provide samples")
        if not np.isfinite(self._total).all():
            raise DataError("activations hold NaN or Inf", remedy="check the data, or leave these samples out")
        return self._total

    @property
    def shrunk(self) -> NDArray[np.float64]:
        """Return H shrunk towards its diagonal by K/(K + 8·patches), so that few patches are not overfitted."""
        total, size = self.value, self.value.shape[1]
        share = size / (size + 8 * self.patches)
        mixed: NDArray[np.float64] = (1 - share) * total
        for one, whole in zip(mixed, total, strict=True):
            one[np.diag_indices(size)] += share * whole.diagonal()
        return mixed


def gather_patches(batch: Array, geometry: PatchGeometry, positions: int | None = None) -> NDArray[np.float32]:
    """Return the inputs of the rows of a weight, float32 [G, patches, K]; at most `positions` patches of a sample."""
    batch = np.asarray(batch, np.float32)
    if not geometry.kernel:
        flat = np.moveaxis(batch, geometry.axis, -1).reshape(-1, batch.shape[geometry.axis])
        return np.ascontiguousarray(flat)[None]
    samples, channels, groups = batch.shape[0], batch.shape[1], geometry.groups
    ones = (1,) * len(geometry.kernel)
    windows = patch_windows(batch, geometry) if geometry.strides else batch.reshape(batch.shape + ones)
    spatial = windows.shape[2 : 2 + len(geometry.kernel)]
    chosen = sample_positions(prod(spatial), positions)
    where: tuple[Any, ...] = (slice(None), slice(None), *np.unravel_index(chosen, spatial))
    picked = windows[where]  # [N, C, P, kernel …]
    picked = picked.reshape(samples, groups, channels // groups, len(chosen), -1)
    ordered = picked.transpose(1, 0, 3, 2, 4)
    return np.ascontiguousarray(ordered).reshape(groups, samples * len(chosen), -1)


def patch_windows(batch: Array, geometry: PatchGeometry) -> Array:
    """Return every patch of a padded batch, [N, C, out …, kernel …], as a view."""
    spatial = range(len(geometry.kernel))
    reach = [(k - 1) * d + 1 for k, d in zip(geometry.kernel, geometry.dilations, strict=True)]
    pads = [(geometry.pads[k], geometry.pads[k + len(reach)]) for k in spatial]
    if geometry.same:
        pads = [same_pads(batch.shape[2 + k], reach[k], geometry.strides[k], geometry.same) for k in spatial]
    padded = np.pad(batch, [(0, 0), (0, 0), *pads])
    windows = sliding_window_view(padded, reach, axis=tuple(2 + k for k in spatial))
    steps = [slice(None, None, step) for step in (1, 1, *geometry.strides, *geometry.dilations)]
    return windows[tuple(steps)]


def same_pads(size: int, reach: int, stride: int, same: str) -> tuple[int, int]:
    """Return the pads of auto_pad: as many outputs as size/stride, rounded up."""
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    less, more = total // 2, total - total // 2
    return (less, more) if same == "SAME_UPPER" else (more, less)


def sample_positions(count: int, most: int | None) -> NDArray[np.intp]:
    """Return positions out of `count`: all, or `most` at random, always the same."""
    if most is None or count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(count).permutation(count)[:most])
