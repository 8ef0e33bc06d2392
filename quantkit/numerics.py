"""INT8 as TensorRT means it: symmetric, zero point 0, scale = amax/127 in float32.

    threshold      scale (float32)     hexadecimal word in a table
    1.0            1/127               3c010204
    6.0            6/127               3d418306
    0.0            0                   0          (a tensor that was zero throughout)

Source: TensorRT's sampleINT8 and trtexec (scale = max_dynamic_range/127); the words were read off tables that
TensorRT 8.6 wrote.

What rounding costs is told as the ratio of signal to quantization noise (SQNR), 10·log10(Σ x² / Σ (x − x̂)²).
"""

from __future__ import annotations

import math
import struct

LEVELS = 127
FLOAT32_MAX = (2.0 - 2.0**-23) * 2.0**127
TINY = 2.0**-126
"""The smallest normal float32, and so the least scale that keeps all its digits."""


def float32(value: float) -> float:
    """The float32 nearest to `value`, as a float; out of range becomes infinity."""
    try:
        (rounded,) = struct.unpack("<f", struct.pack("<f", value))
    except OverflowError:
        return math.copysign(math.inf, value)
    return float(rounded)


def scale_of(threshold: float) -> float:
    """float32(float32(threshold)/127): what TensorRT writes for a threshold."""
    # The double quotient of two float32 values, rounded again, is the float32 quotient (53 ≥ 2·24 + 2 bits).
    return float32(float32(threshold) / LEVELS)


def word_of(scale: float) -> str:
    """The big-endian float32 word of a scale as TensorRT prints it: lower-case hexadecimal, not padded."""
    return format(int.from_bytes(struct.pack(">f", scale), "big"), "x")


def scale_of_word(word: str) -> float:
    """The scale behind a hexadecimal word. ValueError where it is none (see `CalibrationTable`)."""
    if not word or len(word) > 8 or not all(c in "0123456789abcdefABCDEF" for c in word):
        raise ValueError("not a hexadecimal word of at most eight digits")
    (scale,) = struct.unpack(">f", bytes.fromhex(word.zfill(8)))
    if not math.isfinite(scale) or scale < 0 or word.zfill(8)[0] in "89abcdefABCDEF":
        raise ValueError(f"{scale} is not a scale: finite and not negative")
    return float(scale)


def noise_share(noise: float, signal: float) -> float:
    """Energy of noise over that of the signal; 0 for 0/0."""
    return noise / signal if signal else (math.inf if noise else 0.0)


def noise_decibels(ratio: float) -> float:
    """Noise over signal → SQNR in dB: inf for none, −inf for noise without end."""
    return math.inf if ratio == 0.0 else -math.inf if math.isinf(ratio) else 0.0 - 10.0 * math.log10(ratio)


def format_db(value: float, form: str = ".1f") -> str:
    """`21.3 dB`; `exact` where nothing is lost, `all lost` where the noise has no end, `not measured` for nan."""
    if math.isnan(value):
        return "not measured"
    return "exact" if value == math.inf else "all lost" if value == -math.inf else f"{round(value, 1) + 0.0:{form}} dB"
