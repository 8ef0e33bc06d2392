"""From image files to pixels and to the network's input: Pillow decodes and resizes, a lookup table does the rest.

    open → EXIF orientation → colour → resize and crop → (pixel·scale − mean)/std → layout, dtype

Pixels are 0 … 255. Transparency is dropped, palettes and CMYK become RGB, 16-bit grey images keep their precision.
Of a file with several pictures, the first one counts; a file that ends early is unreadable, and so is one of more
pixels than Pillow allows (178,956,970). Large JPEG files are decoded at a fraction of their size if that is still four
times the wanted size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from quantkit.errors import UnreadableError
from quantkit.image_file import TURNED, exif_orientation, opened_image
from quantkit.kernel import gather, numpy_gather
from quantkit.pixel_levels import cast_pixels, channel_value, level_table
from quantkit.preprocess import Preprocess

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
WHOLE = 0.02
"""Largest distance from an integer, of integers that were stored as float32."""
LARGEST_SCALED = 1 << 28
"""Pixels of an image after scaling, before the crop."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIXTEEN_BIT = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N"})


def decode(content: bytes, spec: Preprocess) -> NDArray[Any]:
    """Convert the bytes of an image file to the input array of one sample, without the batch axis. UnreadableError.

    `spec` is resolved: size, channels, layout and dtype are set.
    """
    return to_input_array(pixels_of(content, spec), spec)


def pixels_of(content: bytes, spec: Preprocess) -> NDArray[Any]:
    """Convert the bytes of an image file to pixels [H, W, C] of the spec's size, grey or RGB, before any arithmetic.

    uint8, or float32 in 0 … 255 if the image has 16 bits. UnreadableError.
    """
    return sized_pixels(content, spec)[0]


def sized_pixels(content: bytes, spec: Preprocess) -> tuple[NDArray[Any], tuple[int, int]]:
    """Return the pixels of an image file as `pixels_of` does, and width and height of the upright image in the file."""
    with opened_image(content) as image:
        size = image.size
        if image.format == "JPEG" and spec.size and spec.resize != "none":
            decode_smaller(image, 4 * round(max(spec.size) / spec.crop_fraction))
        upright = turn_upright(image)
        turned = exif_orientation(image) in TURNED
        return to_pixels(upright, spec), size[::-1] if turned else size


def transform(image: Image.Image, spec: Preprocess) -> NDArray[Any]:
    """Convert an opened image to the input array of one sample. UnreadableError where its size or mode does not fit."""
    return to_input_array(to_pixels(image, spec), spec)


def to_pixels(image: Image.Image, spec: Preprocess) -> NDArray[Any]:
    """Convert an opened image to pixels [H, W, C] of the spec's size, grey or RGB. UnreadableError."""
    pixels = np.asarray(fit_size(convert_colour(image, grey=spec.channels == "grey"), spec))
    if pixels.ndim == 2:
        pixels = np.broadcast_to(pixels[..., None], (*pixels.shape, 1 if spec.channels == "grey" else 3))
    return pixels


def to_input_array(pixels: NDArray[Any], spec: Preprocess) -> NDArray[Any]:
    """Convert pixels [H, W, C] to the input array: channel order, arithmetic, layout. UnreadableError.

    16-bit pixels do not become integers of more than 8 bits by losing half of their bits.
    """
    ordered = pixels[..., ::-1] if spec.channels == "bgr" else pixels
    dtype = np.dtype(spec.dtype or "float32")
    if pixels.dtype != np.uint8 and dtype.kind in "iu" and dtype.itemsize > 1 and has_fractions(ordered, spec):
        raise UnreadableError(
            f"has 16 bits, of which {spec.arithmetic()} as {dtype} keeps 8; scale = 257 in the preprocessing keeps all"
        )
    return normalise(ordered, spec)


def has_fractions(pixels: NDArray[Any], spec: Preprocess) -> bool:
    """Return True if preprocessing pixels [H, W, C] makes values that are not integers."""
    values = normalise(pixels, spec.model_copy(update={"dtype": "float64"}))
    return bool(np.abs(values - np.rint(values)).max() > WHOLE)


def decode_smaller(image: Image.Image, wanted: int) -> None:
    """Let libjpeg decode at a fraction of the size, if it divides the size and both sides stay at least `wanted`.

    Other sizes would be rounded up, which stretches the picture.
    """
    width, height = image.size
    for part in (8, 4, 2):
        if width % part == height % part == 0 and min(width, height) // part >= wanted:
            image.draft(image.mode, (width // part, height // part))
            return


def turn_upright(image: Image.Image) -> Image.Image:
    """Return the image turned by its EXIF orientation; damaged EXIF data is ignored."""
    image.load()  # a TIFF is turned while it is loaded
    turn = TURNS.get(exif_orientation(image))
    return image if turn is None else image.transpose(turn)


def convert_colour(image: Image.Image, *, grey: bool) -> Image.Image:
    """Return the image as L or RGB, or as F with values 0 … 255 if it has 16 bits."""
    if image.mode in SIXTEEN_BIT:
        values = np.asarray(image).astype(np.float32)
        if values.size and (values.min() < 0 or values.max() > 65535):
            raise UnreadableError("32-bit integer pixels; save them as 16 bits or as .npy")
        return Image.fromarray(values / np.float32(257))
    if image.mode == "F":
        raise UnreadableError("floating-point pixels; save them as .npy and use --preprocess raw")
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    return image.convert("L" if grey else "RGB")


def fit_size(image: Image.Image, spec: Preprocess) -> Image.Image:
    """Resize and crop to `spec.size`. UnreadableError where the spec forbids it."""
    assert spec.size is not None, "bug in quantkit: the spec was not resolved"
    height, width = spec.size
    if image.size == (width, height) and (spec.resize != "shortest" or spec.crop_fraction == 1.0):
        return image
    filter_ = RESAMPLING[spec.interpolation]
    if spec.resize == "exact":
        return image.resize((width, height), filter_)
    if spec.resize == "shortest":
        return resize_shortest(image, spec, filter_)
    if spec.resize == "letterbox":
        return letterbox(image, spec, filter_)
    raise UnreadableError(
        f'is {image.size[0]}×{image.size[1]} pixels, not {width}×{height}, and the spec says resize = "none"'
    )


def resize_shortest(image: Image.Image, spec: Preprocess, filter_: Image.Resampling) -> Image.Image:
    """Scale so that the crop, enlarged by 1/crop_fraction, fits; then crop the centre (rounded as in torchvision)."""
    assert spec.size is not None
    height, width = spec.size
    tall, wide = round(height / spec.crop_fraction), round(width / spec.crop_fraction)
    if tall * image.size[0] >= wide * image.size[1]:
        scaled = (max(width, int(tall * image.size[0] / image.size[1])), tall)
    else:
        scaled = (wide, max(height, int(wide * image.size[1] / image.size[0])))
    if scaled[0] * scaled[1] > LARGEST_SCALED:
        raise UnreadableError(
            f"is {image.size[0]}×{image.size[1]} pixels: its shortest side would be enlarged until the image has "
            f"{scaled[0]}×{scaled[1]}"
        )
    left, top = round((scaled[0] - width) / 2), round((scaled[1] - height) / 2)
    return image.resize(scaled, filter_).crop((left, top, left + width, top + height))


def letterbox(image: Image.Image, spec: Preprocess, filter_: Image.Resampling) -> Image.Image:
    """Scale so that the image fits inside, and centre it on a canvas of `pad`."""
    assert spec.size is not None
    height, width = spec.size
    ratio = min(height / image.size[1], width / image.size[0])
    scaled = (max(1, round(image.size[0] * ratio)), max(1, round(image.size[1] * ratio)))
    fill = float(spec.pad) if image.mode == "F" else spec.pad if image.mode == "L" else (spec.pad,) * 3
    canvas = Image.new(image.mode, (width, height), fill)
    canvas.paste(image.resize(scaled, filter_), ((width - scaled[0]) // 2, (height - scaled[1]) // 2))
    return canvas


def normalise(pixels: NDArray[Any], spec: Preprocess) -> NDArray[Any]:
    """Return (pixel·scale − mean)/std of pixels [H, W, C], rounded once, in the layout and dtype of the spec."""
    height, width, depth = pixels.shape
    dtype = np.dtype(spec.dtype or "float32")
    nchw = spec.layout == "nchw"
    out = np.empty((depth, height, width) if nchw else (height, width, depth), dtype)
    last = out.transpose(1, 2, 0) if nchw else out
    if pixels.dtype == np.uint8:
        table = level_table(spec.scale, spec.mean, spec.std, depth, dtype.name)
        (gather if dtype == np.float32 else numpy_gather)(pixels, table, last)
        return out
    for channel in range(depth):
        mean, std = channel_value(spec.mean, channel), channel_value(spec.std, channel)
        last[..., channel] = cast_pixels((pixels[..., channel].astype(np.float64) * spec.scale - mean) / std, dtype)
    return out
