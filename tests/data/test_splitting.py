"""Two parts of a data set: laws of the split, and that every kind of data is split by it."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from quantkit.data import DataOptions, open_data
from quantkit.data.splitting import HoldoutPart
from quantkit.errors import DataError, UsageError
from quantkit.preprocess import PRESETS
from quantkit.values import ModelInput

SHARES = st.floats(0.05, 0.95)
X = [ModelInput("x", "float32", (None, 2))]
BOTH = (False, True)


@given(share=SHARES, count=st.integers(0, 400))
def test_each_sample_is_in_one_part(share: float, count: int) -> None:
    tuning, held = (HoldoutPart(share, part).of(count) for part in BOTH)
    assert sorted(tuning + held) == list(range(count))
    assert tuning == sorted(tuning)
    assert held == sorted(held)


@given(share=SHARES, start=st.integers(0, 500), length=st.integers(1, 200))
def test_every_stretch_of_the_list_is_shared_out_alike(share: float, start: int, length: int) -> None:
    """A class folder is such a stretch."""
    held = sum(islice(HoldoutPart(share, True).members(), start, start + length))
    assert abs(held - share * length) <= 3


@given(share=SHARES, count=st.integers(0, 200), more=st.integers(0, 50))
def test_a_longer_list_begins_alike(share: float, count: int, more: int) -> None:
    shorter, longer = HoldoutPart(share, True).of(count), HoldoutPart(share, True).of(count + more)
    assert longer[: len(shorter)] == shorter


@pytest.mark.parametrize("period", [2, 3, 4, 10])
def test_classes_that_take_turns_are_in_both_parts(period: int) -> None:
    held = HoldoutPart(0.5, True).of(100 * period)
    counts = np.bincount([index % period for index in held], minlength=period)
    assert counts.min() >= 30
    assert counts.max() <= 70


def test_a_limit_is_what_is_shared_out() -> None:
    tuning, held = (HoldoutPart(0.5, part, 20).of(100) for part in BOTH)
    assert len(tuning) == len(held) == 10
    assert sorted(tuning + held) == list(range(0, 100, 5))


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, float("nan")])
def test_one_part_of_two_is_neither_none_nor_all(share: float) -> None:
    with pytest.raises(UsageError, match="holdout="):
        HoldoutPart(share, True)


def names(source: object, part: HoldoutPart | None, limit: int | None = None) -> list[str]:
    options = DataOptions(limit=limit, whole=True, part=part)
    feed, _ = open_data(source, X, PRESETS["raw"], options)
    return [name for portion in feed.portions() for name in portion.names]


def test_every_kind_of_data_is_split(tmp_path: Path) -> None:
    rows = np.arange(40, dtype=np.float32).reshape(20, 2)
    np.savez(tmp_path / "rows.npz", x=rows, labels=np.arange(20))
    (tmp_path / "batches").mkdir()
    for number in range(6):
        np.savez(tmp_path / "batches" / f"{number}.npz", x=rows[:3])
    stream = [{"x": rows[k : k + 2]} for k in range(0, 20, 2)]
    for source in (tmp_path / "rows.npz", tmp_path / "batches", stream):
        tuning, held = (names(source, HoldoutPart(0.5, part)) for part in BOTH)
        assert len(tuning) == len(held)
        assert sorted(tuning + held) == sorted(names(source, None))
        assert set(names(source, HoldoutPart(0.5, False), 2)) <= set(tuning)


def test_images_are_split_inside_their_folders(tmp_path: Path) -> None:
    for digit in "01234":
        (tmp_path / digit).mkdir()
        for number in range(8):
            Image.new("L", (4, 4), number).save(tmp_path / digit / f"{number}.png")
    options = DataOptions(whole=True, part=HoldoutPart(0.5, True))
    feed, _ = open_data(tmp_path, [ModelInput("x", "float32", (None, 1, 4, 4))], PRESETS["unit"], options)
    assert feed.names is not None
    folders = [name.split("/")[0] for name in feed.names]
    assert [folders.count(digit) for digit in "01234"] == [4] * 5


def test_a_part_of_nothing_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", x=np.zeros((1, 2), np.float32))
    with pytest.raises(DataError, match="empty"):
        _ = [names(tmp_path / "one.npz", HoldoutPart(0.5, part)) for part in BOTH]
