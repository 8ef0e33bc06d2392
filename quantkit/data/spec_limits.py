"""Limits of a preprocessing spec: images that fit into memory, and values that still differ in the input's type."""

from __future__ import annotations

from quantkit.errors import PreprocessError, UnreadableError
from quantkit.pixel_levels import level_table
from quantkit.preprocess import FEED_ARRAYS, PIXEL_TYPES, Preprocess, resolve_spec
from quantkit.values import ModelInput

LARGEST_AREA = 1 << 26
"""Pixels of an input, 8192 × 8192: a few of them in float32 still fit into memory."""
LARGEST_SIDE = 1 << 14
"""Pixels of the shortest side before the crop."""
FEWEST_LEVELS = 64
"""Different values that the 256 values of a pixel must keep; values normalised for float become 2 … 6 as integers."""


def apply_spec(spec: Preprocess, model_input: ModelInput) -> Preprocess:
    """Return a spec resolved for an input that images are going to be prepared for. PreprocessError.

    Beyond what `resolve_spec` refuses, these are images larger than memory, values that do not fit the input's type,
    and values that almost all become the same: ×1/255 leaves 0 and 1 in an input of integers.
    """
    resolved, where = resolve_spec(spec, model_input), f"input {model_input.describe()}"
    if model_input.dtype not in PIXEL_TYPES:
        raise PreprocessError(f"{where} is not an image: its type is {model_input.dtype}", remedy=FEED_ARRAYS)
    refuse_huge(resolved, where)
    refuse_lost_levels(resolved, where)
    return resolved


def refuse_huge(spec: Preprocess, where: str) -> None:
    """Raise PreprocessError where images of a resolved spec would have more pixels than memory can hold."""
    height, width = spec.size or (0, 0)
    if height * width > LARGEST_AREA:
        raise PreprocessError(
            f"{where} would get images of {height}×{width} pixels, more than {LARGEST_AREA:,}",
            remedy="set a smaller size in the preprocessing spec, or feed arrays",
        )
    shortest = round(max(height, width) / spec.crop_fraction)
    if spec.resize == "shortest" and spec.crop_fraction < 1 and shortest > LARGEST_SIDE:
        raise PreprocessError(
            f"crop_fraction {spec.crop_fraction:g} enlarges images to {shortest:,} pixels, to cut {height}×{width} out "
            f"for {where}",
            remedy="give a larger crop_fraction, such as 0.875",
        )


def refuse_lost_levels(spec: Preprocess, where: str) -> None:
    """Raise PreprocessError where the values of a resolved spec do not fit the input's type, or become almost equal."""
    dtype, whole = str(spec.dtype), "int" in str(spec.dtype)
    remedy = "correct scale, mean and std in the preprocessing spec"
    if whole:
        remedy = "integer inputs mostly take pixels as they are: --preprocess raw"
        if dtype == "int8":
            remedy = "integer inputs mostly take pixels: set mean = [128], for −128 … 127, in a preprocessing spec"
    try:
        table = level_table(spec.scale, spec.mean, spec.std, 1 if spec.channels == "grey" else 3, dtype)
        fault = ""
    except UnreadableError:
        fault = "makes values that do not fit the input's type"
    else:
        kept = min(len(set(row)) for row in table.tolist())  # np.unique would load numpy.ma
        fault = f"leaves {kept} of the 256 values of a pixel in the input's type" if kept < FEWEST_LEVELS else ""
    if fault:
        raise PreprocessError(f"{where}: the preprocessing ({spec.arithmetic()}) {fault} {dtype}", remedy=remedy)
