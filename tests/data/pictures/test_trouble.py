"""Stores that fail while samples are read: what passes is tried again, and the rest is one error, not a bad sample."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantkit.data import DataOptions, Feed, open_data
from quantkit.errors import DataError
from quantkit.preprocess import PRESETS
from quantkit.values import ModelInput
from tests.support.object_stores import WebStore, s3_store
from tests.support.picture_forms import draw, table_of, write_folder, write_shards, write_table

pytest.importorskip("aiohttp")
pytest.importorskip("pyarrow")
pytestmark = pytest.mark.filterwarnings("default")  # of the libraries of stores
INPUTS = (ModelInput("image", "float32", ("N", 3, 6, 5)),)
PICTURES = draw(40)
FORMS = ("folder", "shards/part-{000..001}.tar", "table.parquet", "table.arrow", "floats.npy", "floats.npz")


def opened(source: Any, **options: Any) -> Feed:
    chosen = DataOptions(**{"whole": True, "threads": 2, "batch_size": 5, **options})
    return open_data(source, INPUTS, PRESETS["raw"], chosen)[0]


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebStore]:
    monkeypatch.setattr("quantkit.locations.objects.PAUSES", (0.0, 0.0))
    write_folder(tmp_path / "folder", PICTURES)
    write_shards(tmp_path / "shards", PICTURES)
    for name in ("table.parquet", "table.arrow"):
        write_table(tmp_path / name, table_of(PICTURES))
    floats = np.random.default_rng(0).normal(size=(40, 3, 6, 5)).astype(np.float32)
    np.save(tmp_path / "floats.npy", floats)
    np.savez_compressed(tmp_path / "floats.npz", image=floats)
    store = WebStore(tmp_path)
    yield store
    store.close()


@pytest.mark.parametrize("form", FORMS)
def test_a_connection_that_breaks_in_the_middle(form: str, web: WebStore) -> None:
    plain = np.concatenate([p.batch["image"] for p in opened(f"{web.root}/{form}").portions()])
    portions = opened(f"{web.url}/{form}").portions()
    found = [next(portions)]
    web.cut, web.tired = 1, 1
    found += list(portions)
    assert np.array_equal(np.concatenate([p.batch["image"] for p in found]), plain)


@pytest.mark.parametrize("form", FORMS)
def test_a_connection_that_is_gone(form: str, web: WebStore) -> None:
    feed = opened(f"{web.url}/{form}", skip_corrupt=True)
    web.tired = 1 << 30
    with pytest.raises(DataError, match=r"cannot read http://.*tried 3 times"):
        list(feed.portions())
    assert not feed.unreadable


@pytest.mark.parametrize("form", FORMS)
def test_an_object_that_is_gone(form: str, web: WebStore) -> None:
    feed = opened(f"{web.url}/{form}", skip_corrupt=True)
    for path in web.root.rglob("*.*"):
        path.unlink()
    with pytest.raises(DataError, match=r"cannot read http://.*: there is no such object"):
        list(feed.portions())


def test_an_object_that_changes(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, s3_store(patch) as bucket:
        import fsspec

        system = fsspec.filesystem("s3")
        for picture in PICTURES[:4]:
            system.pipe_file(f"{bucket}/{picture.name}", picture.content)
        feed, again = opened(bucket), opened(bucket)
        identity = feed.identity()
        list(feed.portions())
        assert feed.identity() == identity == again.identity()
        system.pipe_file(f"{bucket}/{PICTURES[2].name}", PICTURES[3].content)
        with pytest.raises(DataError, match=r"00002\.png changed during the run"):
            list(feed.portions())
        assert opened(bucket).identity() != identity
        patch.setenv("AWS_ACCESS_KEY_ID", "")
        patch.delenv("AWS_SECRET_ACCESS_KEY")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        type(system).clear_instance_cache()
        with pytest.raises(DataError, match="access is refused") as caught:
            opened(bucket)
        assert "AWS_ACCESS_KEY_ID" in caught.value.remedy
