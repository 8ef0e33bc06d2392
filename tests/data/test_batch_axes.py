"""Inputs without a batch axis, and with the batch on another axis, from files and iterables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantkit.data import DataOptions, Feed, Portion, open_data
from quantkit.data.feed import portion_digests
from quantkit.errors import DataError
from quantkit.preprocess import Preprocess
from quantkit.values import Array, ModelInput, with_batch_axes

RANDOM = np.random.default_rng(3)


def inputs(**shapes: tuple[Any, ...]) -> tuple[ModelInput, ...]:
    return with_batch_axes([ModelInput(name, "float32", shape) for name, shape in shapes.items()])


def values(*shape: int) -> Array:
    return RANDOM.normal(size=shape).astype(np.float32)


def opened(source: Any, wanted: Sequence[ModelInput], **options: Any) -> Feed:
    return open_data(source, wanted, Preprocess(), DataOptions(threads=1, **options))[0]


def joined(portions: Sequence[Portion], name: str, axis: int) -> Array:
    return np.concatenate([portion.batch[name] for portion in portions], axis)


TABLE = inputs(x=("N", 6), table=(6, 4), level=())
GIVEN = {"x": values(10, 6), "table": values(6, 4), "level": np.float32(2)}


def test_a_table_and_a_number_belong_to_every_batch_of_a_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", **GIVEN)
    feed = opened(tmp_path / "d.npz", TABLE, batch_size=6)
    portions = list(feed.portions())
    assert [portion.samples for portion in portions] == [6, 4]
    assert np.array_equal(joined(portions, "x", 0), GIVEN["x"])
    for portion in portions:
        assert np.array_equal(portion.batch["table"], GIVEN["table"])
        assert portion.batch["level"].shape == ()
    identity = feed.identity()
    assert identity is not None
    streamed = [digest for portion in opened([GIVEN], TABLE).portions() for digest in portion_digests(portion)]
    assert len(streamed) == 10
    assert [digest for portion in portions for digest in portion_digests(portion)] == streamed


def test_the_batch_on_another_axis_is_that_of_the_samples(tmp_path: Path) -> None:
    wanted = inputs(frames=("batch", 5), state=(2, "batch", 3))
    given = {"frames": values(7, 5), "state": values(2, 7, 3)}
    np.savez(tmp_path / "d.npz", **given)
    portions = list(opened(tmp_path / "d.npz", wanted, batch_size=3).portions())
    assert [portion.batch["state"].shape for portion in portions] == [(2, 3, 3), (2, 3, 3), (2, 1, 3)]
    assert np.array_equal(joined(portions, "state", 1), given["state"])
    (cut,) = opened([given], wanted, limit=4).portions()
    assert np.array_equal(cut.batch["state"], given["state"][:, :4])
    both = [digest for portion in portions for digest in portion_digests(portion)]
    assert both[:4] == portion_digests(cut)


def test_a_network_for_one_sample_takes_its_own_state_with_each(tmp_path: Path) -> None:
    wanted = inputs(state=(2, 1, 3), frame=(1, 5))
    given = {"frame": values(4, 5), "state": values(4, 2, 1, 3)}
    np.savez(tmp_path / "each.npz", **given)
    portions = list(opened(tmp_path / "each.npz", wanted).portions())
    assert all(np.array_equal(p.batch["state"], given["state"][i]) for i, p in enumerate(portions))
    np.savez(tmp_path / "one.npz", frame=given["frame"], state=given["state"][0])
    portions = list(opened(tmp_path / "one.npz", wanted).portions())
    assert len(portions) == 4
    assert all(np.array_equal(p.batch["state"], given["state"][0]) for p in portions)


@pytest.mark.parametrize("name", ["table", "level"])
def test_rows_of_what_has_none_are_refused_with_a_remedy_that_works(name: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", **{**GIVEN, name: np.repeat(GIVEN[name][None], 10, 0)})
    with pytest.raises(DataError, match=f"'{name}' is float32 .*, but the model takes {name} float32") as caught:
        opened(tmp_path / "d.npz", TABLE)
    assert "save one array of this shape" in caught.value.remedy
    assert "a folder of .npz batches" in caught.value.remedy
    folder = tmp_path / "batches"
    folder.mkdir()
    for i in range(2):
        np.savez(folder / f"{i}.npz", x=GIVEN["x"][5 * i :][:5], table=GIVEN["table"] + i, level=GIVEN["level"] + i)
    assert [portion.samples for portion in opened(folder, TABLE).portions()] == [5, 5]
    with pytest.raises(DataError, match="it has no batch axis: give one array of this shape"):
        list(opened([{**GIVEN, name: np.repeat(GIVEN[name][None], 10, 0)}], TABLE).portions())
