"""INT8 and FP8 as TensorRT defines them: symmetric, zero point 0, scale = amax/127 in float32, in FP8 amax/448.

    threshold      scale (float32)     hexadecimal word in a table
    1.0            1/127               3c010204
    6.0            6/127               3d418306
    0.0            0                   0          (a tensor that was zero throughout)

Source: TensorRT's sampleINT8 and trtexec (scale = max_dynamic_range/127); the words are from tables that TensorRT 8.6
wrote.

FP8 is E4M3 (ONNX's FLOAT8E4M3FN): four exponent and three mantissa bits, no infinities, rounded half to even.

    |x/scale|           step
    2^e … 2^(e+1)       2^(e−3)      for e = −6 … 8: relative steps of 1/8 … 1/16
    0 … 2^−6            2^−9         subnormals: steps stay the same size
    above 448                        448, the largest value (saturation)

Source: Micikevicius et al. 2022, "FP8 formats for deep learning" (arXiv 2209.05433); ONNX, "Float stored in 8 bits".

The cost of rounding is given as the ratio of signal to quantization noise (SQNR), 10·log10(Σ x² / Σ (x − x̂)²).
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEVELS = 127
FLOAT32_MAX = (2.0 - 2.0**-23) * 2.0**127
TINY = 2.0**-126
"""The smallest normal float32, and therefore the smallest scale with full precision."""
E4M3_LARGEST = 448.0
E4M3_EXPONENT = -6
"""The exponent of the least normal number, 2^−6; subnormals have its steps."""
E4M3_MANTISSA = 3
E4M3_SIGN = 0x80
E4M3_NAN = 0x7F
"""The one code of each sign that is not a number."""
E4M3_BIAS = 7
"""Added to the exponent in a code."""


def float32(value: float) -> float:
    """Return the float32 nearest to `value`, as a float; values out of range become infinite."""
    try:
        (rounded,) = struct.unpack("<f", struct.pack("<f", value))
    except OverflowError:
        return math.copysign(math.inf, value)
    return float(rounded)


def scale_of(threshold: float, largest: int = LEVELS) -> float:
    """Return float32(float32(threshold)/127), the scale that TensorRT writes for a threshold.

    largest: the largest value of the type, 448 for FP8.
    """
    # The double quotient of two float32 values, rounded again, is the float32 quotient (53 ≥ 2·24 + 2 bits).
    return float32(float32(threshold) / largest)


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


def round_to_e4m3(values: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Return the nearest E4M3 values, half to even, at most ±448; float32 in the shape of `values`. NaN stays NaN."""
    import numpy as np

    exact = np.asarray(values, np.float32)
    steps = e4m3_steps(np.abs(exact))
    rounded: NDArray[np.float32] = np.clip(
        np.rint(exact / steps) * steps, -np.float32(E4M3_LARGEST), np.float32(E4M3_LARGEST)
    )
    return rounded


def e4m3_steps(sizes: NDArray[np.floating[Any]]) -> NDArray[Any]:
    """Return the distance of neighbouring E4M3 values around each |x|, in the type of `sizes`."""
    import numpy as np

    _, exponent = np.frexp(np.maximum(sizes, 2.0**E4M3_EXPONENT))  # x = m·2^exponent with m in [1/2, 1)
    steps: NDArray[Any] = np.ldexp(np.ones_like(sizes), exponent - 1 - E4M3_MANTISSA)
    return steps


def e4m3_codes(values: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Return the codes of the nearest E4M3 values, as QuantizeLinear computes them. Finite values only."""
    import numpy as np

    rounded = round_to_e4m3(values)
    size = np.abs(rounded)
    _, exponent = np.frexp(np.maximum(size, 2.0**E4M3_EXPONENT))
    exponent = exponent - 1
    mantissa = np.ldexp(size, E4M3_MANTISSA - exponent)  # 8 … 15; 0 … 7 of subnormals
    codes = mantissa + (exponent + E4M3_BIAS - 1) * (1 << E4M3_MANTISSA)
    signs = np.where(np.signbit(rounded), E4M3_SIGN, 0)
    result: NDArray[np.uint8] = (codes.astype(np.int64) | signs).astype(np.uint8)
    return result


def e4m3_values(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the value of each code; NaN for 0x7F and 0xFF."""
    import numpy as np

    numbers = np.asarray(codes, np.uint8).astype(np.int64)
    size = numbers & ~E4M3_SIGN
    fraction, exponent = size & 0b111, size >> E4M3_MANTISSA
    whole = np.where(exponent > 0, fraction + (1 << E4M3_MANTISSA), fraction)
    values = np.ldexp(whole.astype(np.float64), np.maximum(exponent, 1) - E4M3_BIAS - E4M3_MANTISSA)
    values[size == E4M3_NAN] = np.nan
    signed: NDArray[np.float32] = np.where(numbers & E4M3_SIGN, -values, values).astype(np.float32)
    return signed
