"""The hot spots of calibration: counting |x| into 2048 bins, exact sums per channel, pixels through a table.

`extremes`, `observe`, `channel_sums` and `gather` come from the compiled `quantkit._kernel` if the package was
installed with a C compiler, and otherwise from the numpy functions below, which yield the same counts and the same
bits, a few times slower. `COMPILED` is True for the former.

    bin of x        floor(|x|·2048/R), exact; |x| = R falls into bin 2048, the edge
    range R grows   by doubling: bins are added in pairs, so old counts stay exact
    exact sums      a float64 is cut into digits of 32 bits at fixed positions; each digit is summed as an integer,
                    and the three highest positions seen are kept: order and grouping cannot change the result
"""

from __future__ import annotations

from math import frexp, ldexp
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BINS = 2048
DIGIT_BITS = 32
DIGITS = 3
EMPTY = -1000
"""The top digit of an exact sum that has seen nothing but zeros."""
LANES = 8


def numpy_extremes(x: NDArray[np.float32]) -> tuple[float, float, bool]:
    """Return minimum and maximum of `x`, and whether all of it is finite (otherwise ignore the two)."""
    if x.size == 0:
        return 0.0, 0.0, True
    low, high = float(x.min()) + 0.0, float(x.max()) + 0.0  # -0 and 0 are the same extreme
    return low, high, bool(np.isfinite(low) and np.isfinite(high))


def grow_range(range_: float, most: float, invariant: bool) -> float:
    """Return the range that holds |x| ≤ `most`: the old one, doubled as often as needed; from `most` if it is 0."""
    if range_ == 0.0 and most > 0.0:
        range_ = ldexp(1.0, frexp(most)[1]) if invariant else most
    while most >= range_ > 0.0 if invariant else most > range_:
        range_ *= 2.0
    return range_


def double_range(counts: NDArray[np.int64]) -> None:
    """Add neighbouring bins of `counts` (int64 [2049]) in pairs, in place; the edge is half of the new range."""
    edge = counts[BINS]
    counts[: BINS // 2] = counts[:BINS].reshape(-1, 2).sum(axis=1)
    counts[BINS // 2 :] = 0
    counts[BINS // 2] = edge


def widen(counts: NDArray[np.int64], old: float, new: float) -> float:
    """Bring `counts` (int64 [2049]) from the range `old` to `new`, in place, and return `new`.

    `old` is 0, or doublings lead from it to `new`.
    """
    while 0.0 < old < new:
        double_range(counts)
        old *= 2.0
    return new


def numpy_observe(
    x: NDArray[np.float32], counts: NDArray[np.int64], state: NDArray[np.float64], invariant: bool
) -> bool:
    """Count |x| into `counts` (int64 [2049]); `state` is (range, min, max), all three updated in place.

    Returns False, with `counts` undefined, where `x` holds NaN or Inf.
    """
    low, high, finite = numpy_extremes(x)
    if not finite or x.size == 0:
        return finite
    state[1], state[2] = min(state[1], low), max(state[2], high)
    state[0] = range_ = widen(counts, float(state[0]), grow_range(float(state[0]), max(-low, high), invariant))
    flat = np.abs(x.reshape(-1))
    if range_ == 0.0:
        counts[0] += flat.size
        return True
    for start in range(0, flat.size, 1 << 16):
        # A quotient of two 24-bit numbers is never rounded up to an integer: the floor is exact.
        bins = (flat[start : start + (1 << 16)].astype(np.float64) * BINS / range_).astype(np.intp)
        counts += np.bincount(bins, minlength=BINS + 1)
    return True


def add_exactly(sums: NDArray[np.int64], values: NDArray[np.float64]) -> None:
    """Add float64 `values` [..., n] to the exact sums `sums` int64 [..., 4] (top position, three digits), in place."""
    exponents = np.frexp(values)[1].astype(np.int64)
    tops = np.where(values == 0.0, EMPTY, (exponents - 1) // DIGIT_BITS)
    for i in range(values.shape[-1]):
        raise_top(sums, tops[..., i])
        rest = values[..., i].copy()
        for k in range(DIGITS):
            shift = (DIGIT_BITS * (sums[..., 0] - k)).astype(np.int32)
            shift = np.where(sums[..., 0] == EMPTY, 0, shift)
            digit = np.trunc(np.ldexp(rest, -shift))
            sums[..., k + 1] += digit.astype(np.int64)
            rest -= np.ldexp(digit, shift)


def raise_top(sums: NDArray[np.int64], tops: NDArray[np.int64]) -> None:
    """Move the digits of exact sums down so that the top position is at least `tops`, in place."""
    up = np.clip(tops - sums[..., 0], 0, DIGITS)
    digits = sums[..., 1:].copy()
    for k in range(DIGITS):
        source = k - up
        moved = np.take_along_axis(digits, np.maximum(source, 0)[..., None], axis=-1)[..., 0]
        sums[..., k + 1] = np.where(source >= 0, moved, 0)
    sums[..., 0] = np.maximum(sums[..., 0], tops)


def merge_sums(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the exact sums of two parts together: int64 [..., 4]."""
    left, right = a.copy(), b.copy()
    raise_top(left, right[..., 0])
    raise_top(right, left[..., 0])
    left[..., 1:] += right[..., 1:]
    merged: NDArray[np.int64] = left
    return merged


def sum_values(sums: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the float64 nearest to each exact sum [..., 4] → [...]."""
    flat = sums.reshape(-1, DIGITS + 1).tolist()
    values = [
        0.0
        if top == EMPTY
        else ldexp(float((high << 2 * DIGIT_BITS) + (mid << DIGIT_BITS) + low), DIGIT_BITS * (top - 2))
        for top, high, mid, low in flat
    ]
    return np.array(values, dtype=np.float64).reshape(sums.shape[:-1])


def numpy_channel_sums(
    x: NDArray[np.float32],
    units: int,
    rows: int,
    channels: int,
    inner: int,
    ranges: NDArray[np.float32],
    sums: NDArray[np.int64],
) -> None:
    """Update minimum, maximum, sum and sum of squares per channel of `x`, viewed as [units, rows, channels, inner].

    One of `rows` and `inner` is 1. `ranges` float32 [channels, 2] and `sums` int64 [channels, 2, 4] are updated in
    place. Within a unit (one image) float64 additions have a fixed order; across units the sum is exact.
    """
    if not x.size:
        return
    block = x.reshape(units, rows, channels, inner).astype(np.float64)
    if inner == 1:
        grouped = block[..., 0]
        total, squares = grouped.sum(axis=1), (grouped * grouped).sum(axis=1)
        if rows > 1:  # numpy adds pairwise along a contiguous axis; the order here is row after row
            total, squares = sum_in_order(grouped), sum_in_order(grouped * grouped)
    else:
        padded = np.zeros((units, channels, -(-inner // LANES) * LANES))
        padded[..., :inner] = block[:, 0]
        lanes = np.moveaxis(padded.reshape(units, channels, -1, LANES), 2, 1)
        total, squares = sum_tree(sum_in_order(lanes)), sum_tree(sum_in_order(lanes * lanes))
    ranges[:, 0] = np.minimum(ranges[:, 0], block.min(axis=(0, 1, 3)).astype(np.float32)) + np.float32(0)
    ranges[:, 1] = np.maximum(ranges[:, 1], block.max(axis=(0, 1, 3)).astype(np.float32)) + np.float32(0)
    add_exactly(sums, np.stack([total.T, squares.T], axis=1))


def sum_in_order(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sum over axis 1, one element after the other."""
    total = np.zeros(values.shape[:1] + values.shape[2:])
    for i in range(values.shape[1]):
        total += values[:, i]
    return total


def sum_tree(lanes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sum over the last axis, of length eight, in a fixed tree."""
    for _ in range(3):
        lanes = lanes[..., 0::2] + lanes[..., 1::2]
    total: NDArray[np.float64] = lanes[..., 0]
    return total


def numpy_gather(pixels: NDArray[np.uint8], table: NDArray[Any], out: NDArray[Any]) -> None:
    """Set out[h, w, c] = table[c, pixels[h, w, c]], for `pixels` and `out` [H, W, C] of any strides, `table` [C, 256].

    The compiled counterpart takes only float32 and releases the interpreter lock.
    """
    for channel in range(pixels.shape[2]):
        out[..., channel] = table[channel][pixels[..., channel]]


try:
    import quantkit._kernel as fastest

    COMPILED = True
except ImportError:
    COMPILED = False

extremes = fastest.extremes if COMPILED else numpy_extremes
observe = fastest.observe if COMPILED else numpy_observe
channel_sums = fastest.channel_sums if COMPILED else numpy_channel_sums
gather = fastest.gather if COMPILED else numpy_gather
