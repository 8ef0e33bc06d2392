"""Opening image files: the one door to a decoder, whatever is in the file.

Only the formats of `SUFFIXES` are ever decoded. Pillow looks at a file's content, not at its name, and hands some
formats to other programs: PostScript goes to Ghostscript. Such a file is no image here, whatever its suffix.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantkit.errors import UnreadableError
from quantkit.regular_file import file_fault, open_regular, read_regular, regular_file_digest

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
LARGEST_FILE = 1 << 30
"""Bytes of an image file: more than the largest image that Pillow decodes has pixels, at six bytes each."""
TURNED = frozenset({5, 6, 7, 8})
"""EXIF orientations that swap width and height."""
ORIENTATION = 0x0112
"""EXIF tag of the orientation."""


@contextmanager
def opened_image(source: Path | bytes) -> Iterator[Image.Image]:
    """Open an image file, or its bytes; the pixels are decoded when they are first used.

    Everything that a damaged file can raise while the image is in use becomes an UnreadableError with the reason.
    """
    from PIL import Image

    try:
        file = BytesIO(source) if isinstance(source, bytes) else open_regular(source)
        with file, Image.open(file, formats=FORMATS) as image:
            yield image
    except UnreadableError:
        raise
    except MemoryError:
        raise UnreadableError("it does not fit into memory") from None
    except Exception as error:  # Pillow raises many kinds of exceptions for damaged files
        # Pillow says "cannot identify image file <_io.BytesIO object at …>", whose address is of no use.
        raise UnreadableError(file_fault(error).split(" <_io", 1)[0] or type(error).__name__) from None


def read_image_file(path: Path) -> bytes:
    """Return the bytes of an image file. UnreadableError, also for a file that is too large for any image."""
    try:
        return read_regular(path, LARGEST_FILE)
    except OSError as error:
        raise UnreadableError(file_fault(error)) from None


def image_file_digest(path: Path) -> bytes:
    """Return the sha256 of an image file, which is not kept in memory. UnreadableError as in `read_image_file`."""
    try:
        return bytes.fromhex(regular_file_digest(path, LARGEST_FILE))
    except OSError as error:
        raise UnreadableError(file_fault(error)) from None


def upright_size(source: Path | bytes) -> tuple[int, int]:
    """Return width and height of an image in its upright orientation, read from its header only. UnreadableError."""
    with opened_image(source) as image:
        width, height = image.size
        return (height, width) if exif_orientation(image) in TURNED else (width, height)


def exif_orientation(image: Image.Image) -> int:
    """Return the orientation 1 … 8 in an image's EXIF data; 1, upright, where they are missing or damaged."""
    try:
        found: Any = image.getexif().get(ORIENTATION)
    except (OSError, ValueError, SyntaxError, KeyError, struct.error, Warning):
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1
