"""Samples that cannot be read, whatever the reason: one error names them all, or they are left out on request."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quantkit.data import DataOptions, open_data
from quantkit.data.image_folder import list_images
from quantkit.data.pictures.store import PictureSamples
from quantkit.errors import DataError
from quantkit.preprocess import Preprocess
from quantkit.values import ModelInput

INPUTS = (ModelInput("x", "float32", (None, 1, 4, 4)),)
BAD = {"b.png": "named pipe", "d.png": "larger than", "e.png": "cannot identify", "f.png": "Input/output error"}


@pytest.fixture(name="folder")
def images(tmp_path: Path) -> Path:
    for i, name in enumerate("ac"):
        Image.fromarray(np.full((4, 4), i, np.uint8)).save(tmp_path / f"{name}.png")
    os.mkfifo(tmp_path / "b.png")
    with open(tmp_path / "d.png", "wb") as file:
        file.truncate(20 << 30)
    (tmp_path / "e.png").write_bytes(b"no image")
    (tmp_path / "f.png").symlink_to(
        "/proc/self/mem"
    )  # a regular file whose first byte cannot be read, also not by root
    return tmp_path


def test_left_out_on_request(folder: Path) -> None:
    feed, _ = open_data(folder, INPUTS, Preprocess(), DataOptions(skip_corrupt=True))
    identity = feed.identity()
    assert identity is not None
    (portion,) = feed.portions()
    assert portion.names == ("a.png", "c.png")
    assert [text.split(":")[0] for text in feed.unreadable] == list(BAD)
    (folder / "e.png").write_bytes((folder / "a.png").read_bytes())
    again = open_data(folder, INPUTS, Preprocess(), DataOptions(skip_corrupt=True))[0].identity()
    assert again != identity, "an image that can be read by now is another data set"


def test_one_error_names_them_all(folder: Path) -> None:
    feed, _ = open_data(folder, INPUTS, Preprocess(), DataOptions())
    with pytest.raises(DataError, match="4 of 6 samples cannot be read") as caught:
        next(iter(feed.portions()))
    for name, reason in BAD.items():
        assert f"{name}: " in caught.value.problem
        assert reason in caught.value.problem
    with pytest.raises(DataError, match="3 of 6 samples cannot be read"):
        feed.identity()  # decodes nothing
    assert "--skip-corrupt" in caught.value.remedy


def test_a_sample_beyond_memory_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(self: PictureSamples, index: int) -> None:
        raise MemoryError

    monkeypatch.setattr(PictureSamples, "load", too_large)
    feed, _ = open_data(folder / "a.png", INPUTS, Preprocess(), DataOptions())
    with pytest.raises(DataError, match=r"a\.png: it does not fit into memory"):
        next(iter(feed.portions()))


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.png", "a.txt", "folder"])
def test_a_pipe_is_no_data(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match=f"{name}.*: it is a named pipe"):
        open_data(tmp_path / name, INPUTS, Preprocess(), DataOptions())


@pytest.mark.slow
def test_folders_are_read_however_deep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    depth = 1010  # more than Python's calls
    for _ in range(depth):
        os.mkdir("d")
        os.chdir("d")
    Path("a.png").touch()
    found = list_images(tmp_path).names
    os.unlink("a.png")
    for _ in range(depth):  # shutil.rmtree calls itself
        os.chdir("..")
        os.rmdir("d")
    assert found == ("d/" * depth + "a.png",)


def test_a_stream_of_nothing_ends() -> None:
    nothing = {"x": np.zeros((0, 1, 4, 4), np.float32)}
    feed, _ = open_data(lambda: itertools.repeat(nothing), INPUTS, Preprocess(), DataOptions())
    with pytest.raises(DataError, match="1,000 batches in a row hold no samples"):
        list(feed.portions())
