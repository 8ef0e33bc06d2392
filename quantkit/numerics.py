"""INT8 as TensorRT defines it: symmetric, zero point 0, scale = amax/127 in float32.

    threshold      scale (float32)     hexadecimal word in a table
    1.0            1/127               3c010204
    6.0            6/127               3d418306
    0.0            0                   0          (a tensor that was zero throughout)

Source: TensorRT's sampleINT8 and trtexec (scale = max_dynamic_range/127); the words are from tables that TensorRT 8.6
wrote.

The cost of rounding is given as the ratio of signal to quantization noise (SQNR), 10·log10(Σ x² / Σ (x − x̂)²).
"""

from __future__ import annotations

import math
import struct

LEVELS = 127
FLOAT32_MAX = (2.0 - 2.0**-23) * 2.0**127
TINY = 2.0**-126
"""The smallest normal float32, and therefore the smallest scale with full precision."""


def float32(value: float) -> float:
    """Return the float32 nearest to `value`, as a float; values out of range become infinite."""
    try:
        (rounded,) = struct.unpack("<f", struct.pack("<f", value))
    except OverflowError:
        return math.copysign(math.inf, value)
    return float(rounded)


def scale_of(threshold: float) -> float:
    """Return float32(float32(threshold)/127), the scale that TensorRT writes for a threshold."""
    # The double quotient of two float32 values, rounded again, is the float32 quotient (53 ≥ 2·24 + 2 bits).
    return float32(float32(threshold) / LEVELS)


def usable_scale(scale: float) -> float:
    """Return a scale that INT8 kernels can be built with: that of the range 1 for 0, which a tensor that was zero
    throughout has.

    TensorRT 8.6 writes such scales, and does not build with them: it divides a bias by the scales of input and weights.
    The least normal number would make that product 0 again.
    """
    return scale or scale_of(1.0)


def word_of(scale: float) -> str:
    """Return the big-endian float32 word of a scale as TensorRT prints it: lower-case hexadecimal, not padded."""
    return format(int.from_bytes(struct.pack(">f", scale), "big"), "x")


def scale_of_word(word: str) -> float:
    """Return the scale of a hexadecimal word. ValueError where it is not one (see `CalibrationTable`)."""
    if not word or len(word) > 8 or not all(c in "0123456789abcdefABCDEF" for c in word):
        raise ValueError("not a hexadecimal word of at most eight digits")
    (scale,) = struct.unpack(">f", bytes.fromhex(word.zfill(8)))
    if not math.isfinite(scale) or scale < 0 or word.zfill(8)[0] in "89abcdefABCDEF":
        raise ValueError(f"{scale} is not a scale: finite and not negative")
    return float(scale)


def noise_share(noise: float, signal: float) -> float:
    """Return the energy of the noise over that of the signal; 0 for 0/0."""
    return noise / signal if signal else (math.inf if noise else 0.0)


def noise_decibels(ratio: float) -> float:
    """Return the SQNR in dB for a ratio of noise to signal: inf without noise, −inf for infinite noise."""
    return math.inf if ratio == 0.0 else -math.inf if math.isinf(ratio) else 0.0 - 10.0 * math.log10(ratio)


def format_db(value: float, form: str = ".1f") -> str:
    """Return an SQNR as text: `21.3 dB`; `exact` for inf, `all lost` for −inf, `not measured` for nan."""
    if math.isnan(value):
        return "not measured"
    if math.isinf(value):
        return "exact" if value > 0 else "all lost"
    return f"{round(value, 1) + 0.0:{form}} dB".replace("-", "−")
