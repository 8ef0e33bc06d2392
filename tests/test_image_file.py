"""One door to images: a fixed list of formats, whatever a file holds, and everything wrong is one kind of error."""

from __future__ import annotations

import io
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from quantkit.data.pixels import decode
from quantkit.errors import UnreadableError
from quantkit.image_file import FORMATS, SUFFIXES, exif_orientation, opened_image, read_image_file, upright_size
from quantkit.preprocess import Preprocess
from quantkit.report.thumbnails import thumbnail

SPEC = Preprocess(size=(8, 8), channels="rgb", layout="nhwc", dtype="float32")
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 16, 3), np.uint8)
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n%%EOF\n"


def saved(kind: str, **options: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(PIXELS).save(content, kind, **options)
    return content.getvalue()


def test_every_suffix_names_a_format_of_the_list() -> None:
    Image.init()
    assert {Image.EXTENSION[suffix] for suffix in SUFFIXES} == set(FORMATS)


@pytest.mark.parametrize("kind", FORMATS)
def test_these_formats_are_decoded_whatever_the_name(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(saved(kind))
    assert decode(path.read_bytes(), SPEC).shape == (8, 8, 3)
    assert upright_size(path) == (16, 20)
    assert thumbnail(path).uri


def test_a_photo_with_a_second_picture_is_a_jpeg() -> None:
    content = saved("MPO", save_all=True, append_images=[Image.fromarray(PIXELS[::-1])])
    assert decode(content, SPEC).shape == (8, 8, 3)


@pytest.mark.parametrize("kind", ["EPS", "GIF", "PPM", "TGA", "ICO", "PDF", "PCX", "SGI"])
def test_other_formats_are_no_images_and_start_no_program(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    monkeypatch.setattr(subprocess, "Popen", lambda *command, **_: started.append(command))
    monkeypatch.setattr(os, "system", started.append)
    path = tmp_path / "a.jpg"
    path.write_bytes(POSTSCRIPT if kind == "EPS" else saved(kind))
    with pytest.raises(UnreadableError, match=r"cannot identify image file$"):
        decode(path.read_bytes(), SPEC)
    with pytest.raises(UnreadableError, match="cannot identify"):
        upright_size(path)
    assert thumbnail(path).missing == "the file cannot be read as an image"
    assert not started


def test_a_file_too_large_for_an_image_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "big.png", "wb") as file:
        file.truncate(20 << 30)
    with pytest.raises(UnreadableError, match="larger than 1024 MiB"):
        read_image_file(tmp_path / "big.png")
    with pytest.raises(UnreadableError, match="cannot identify"), opened_image(tmp_path / "big.png"):
        pass


def test_a_pipe_with_the_name_of_an_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    os.mkfifo(path)
    with pytest.raises(UnreadableError, match="a named pipe"):
        read_image_file(path)
    with pytest.raises(UnreadableError, match="a named pipe"):
        upright_size(path)
    assert thumbnail(path).missing


def test_memory_that_does_not_suffice_is_a_reason() -> None:
    with pytest.raises(UnreadableError, match="memory"), opened_image(saved("PNG")):
        raise MemoryError


def test_an_orientation_is_one_of_eight() -> None:
    for written, meant in ((1, 1), (6, 6), (8, 8), (0, 1), (9, 1), (600, 1)):
        exif = Image.Exif()
        exif[0x0112] = written
        with opened_image(saved("JPEG", exif=exif)) as image:
            assert exif_orientation(image) == meant


def test_a_thin_image_is_not_enlarged_beyond_all_memory() -> None:
    content = io.BytesIO()
    Image.fromarray(np.zeros((1, 60000), np.uint8)).save(content, "PNG")
    with pytest.raises(UnreadableError, match="60000×1 pixels"):
        decode(content.getvalue(), SPEC.model_copy(update={"size": (224, 224), "resize": "shortest"}))
