"""Small copies of images as data URIs, which make a page self-contained."""

from __future__ import annotations

import base64
import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantkit.errors import UnreadableError
from quantkit.image_file import opened_image
from quantkit.paths import exists

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 160
"""Longest side of a copy, in pixels."""
TINY = 96
"""Images up to this size are not scaled, and are displayed with visible pixels."""
LARGEST = 12_000
"""Bytes of a copy; a larger JPEG is encoded again with lower quality."""


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A data URI, or the reason why there is none."""

    uri: str
    missing: str = ""
    pixelated: bool = False


def thumbnail(path: Path | None, side: int = SIDE, largest: int = LARGEST) -> Thumbnail:
    """Return a copy of an image file, at most `side` pixels long; JPEG of up to `largest` bytes.

    A missing or unreadable file is no error, because the report is still valid.
    """
    if path is None:
        return Thumbnail("", "no image file")
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with opened_image(path) as image:
                tiny = max(image.size) <= TINY
                image.draft("RGB", (side, side))
                upright = ImageOps.exif_transpose(image)
                copy = flatten(upright)
                copy.info.clear()  # profiles and other metadata of the original
    except UnreadableError:
        return Thumbnail("", "the file cannot be read as an image" if exists(path) else "the file no longer exists")
    if tiny:
        return Thumbnail(data_uri("image/png", png_bytes(copy)), pixelated=True)
    copy.thumbnail((side, side))
    for quality in (82, 65, 45, 25):
        content = jpeg_bytes(copy, quality)
        if len(content) <= largest:
            break
    return Thumbnail(data_uri("image/jpeg", content))


def flatten(image: Image) -> Image:
    """Convert to RGB, with a white background behind transparent pixels."""
    import numpy as np
    import PIL.Image

    if image.mode.startswith("I") or image.mode == "F":
        grey = np.asarray(image, np.float64)
        low, high = float(grey.min()), float(grey.max())
        return PIL.Image.fromarray(((grey - low) * (255.0 / ((high - low) or 1.0))).astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        layered = image.convert("RGBA")
        return PIL.Image.alpha_composite(PIL.Image.new("RGBA", layered.size, "white"), layered).convert("RGB")
    return image.convert("RGB")


def png_bytes(image: Image) -> bytes:
    """Encode as PNG without text or date, so that the same pixels give the same bytes."""
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    return content.getvalue()


def jpeg_bytes(image: Image, quality: int) -> bytes:
    """Encode as JPEG without the metadata of the original."""
    content = io.BytesIO()
    image.save(content, "JPEG", quality=quality, optimize=True)
    return content.getvalue()


def data_uri(kind: str, content: bytes) -> str:
    """Return for example `data:image/png;base64,…`."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
