"""Data that change while they are in use: what was digested is what is used, or there is an error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quantkit.data import DataOptions, Feed, open_data
from quantkit.data.feed import DigestMemory, identity_as_read
from quantkit.errors import DataError
from quantkit.preprocess import Preprocess
from quantkit.values import ModelInput

INPUTS = (ModelInput("x", "float32", (None, 1, 4, 4)),)
RNG = np.random.default_rng(0)


def draw_images(place: Path) -> Path:
    for i in range(4):
        Image.fromarray(RNG.integers(0, 256, (4, 4), np.uint8)).save(place / f"{i}.png")
    return place


def draw_array(place: Path) -> Path:
    np.save(place / "x.npy", RNG.normal(size=(4, 1, 4, 4)).astype(np.float32))
    return place / "x.npy"


def draw_archive(place: Path) -> Path:
    np.savez(place / "x.npz", x=RNG.normal(size=(4, 1, 4, 4)).astype(np.float32))
    return place / "x.npz"


def draw_batches(place: Path) -> Path:
    for i in range(2):
        np.savez(place / f"{i}.npz", x=RNG.normal(size=(2, 1, 4, 4)).astype(np.float32))
    return place


DRAW: dict[str, Callable[[Path], Path]] = {
    "images": draw_images, "npy": draw_array, "npz": draw_archive, "batches": draw_batches,
}  # fmt: skip


def opened(path: Path) -> Feed:
    options = DataOptions() if path.is_dir() and list(path.glob("*.npz")) else DataOptions(batch_size=2)
    return open_data(path, INPUTS, Preprocess(), options)[0]


@pytest.mark.parametrize("kind", DRAW)
def test_samples_that_change_between_two_readings_are_an_error(kind: str, tmp_path: Path) -> None:
    feed = opened(DRAW[kind](tmp_path))
    before = feed.identity()
    list(feed.portions())
    DRAW[kind](tmp_path)
    with pytest.raises(DataError, match="changed during the run") as caught:
        list(feed.portions())
    assert any(name in caught.value.problem for name in ("0.png", "x.npy[0]", "x.npz[0]", "0.npz"))
    assert feed.identity() == before, "what was read first counts"
    assert opened(DRAW[kind](tmp_path)).identity() != before


@pytest.mark.parametrize("kind", DRAW)
def test_the_identity_is_that_of_what_was_read(kind: str, tmp_path: Path) -> None:
    path = DRAW[kind](tmp_path)
    wanted, feed = opened(path).identity(), opened(path)
    list(feed.portions())
    for file in tmp_path.iterdir():
        file.unlink()  # nothing is read a second time
    assert wanted is not None
    assert feed.identity() == wanted
    assert identity_as_read(feed, wanted).heads is not None


def test_stamps_are_those_before_the_data_were_read(tmp_path: Path) -> None:
    feed = opened(draw_images(tmp_path))
    before = feed.stamps()
    feed.identity()
    draw_images(tmp_path)
    assert feed.stamps() == before
    assert opened(tmp_path).stamps() != before


def test_another_identity_than_the_expected_one_is_an_error(tmp_path: Path) -> None:
    wanted = opened(draw_images(tmp_path)).identity()
    assert wanted is not None
    feed = opened(draw_images(tmp_path))
    list(feed.portions())
    with pytest.raises(DataError, match="changed during the run"):
        identity_as_read(feed, wanted)


def test_a_memory_keeps_what_came_first() -> None:
    memory = DigestMemory()
    assert memory.get(0) is None
    memory.notice(0, [b"a"], "a.png")
    memory.notice(0, [b"a"], "a.png")
    with pytest.raises(DataError, match=r"a\.png changed"):
        memory.notice(0, [b"b"], "a.png")
    assert memory.get(0) == [b"a"]
