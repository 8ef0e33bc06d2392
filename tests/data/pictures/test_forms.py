"""The same pictures are the same samples, whatever they lie in, and wherever."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantkit.data import DataOptions, Feed, open_data
from quantkit.data.labels import LabelOptions, LabelTask, open_labels
from quantkit.errors import DataError
from quantkit.preprocess import PRESETS
from quantkit.values import ModelInput
from tests.support.object_stores import WebStore, s3_store
from tests.support.picture_forms import (
    CLASSES,
    Drawn,
    draw,
    table_of,
    write_folder,
    write_members,
    write_shards,
    write_table,
)

pytest.importorskip("pyarrow")
pytest.importorskip("fsspec")
pytestmark = pytest.mark.filterwarnings("default")  # of the libraries of stores
INPUTS = (ModelInput("image", "float32", ("N", 3, 6, 5)),)
PICTURES = draw(23)
FORMS = (
    "folder", "shards", "shards json", "shards name", "archive", "table.parquet", "table.feather", "table.arrow",
    "plain.parquet", "named.feather",
)  # fmt: skip


def make(form: str, root: Path, pictures: list[Drawn] = PICTURES) -> str:
    """Write a form, and return what --data would be."""
    kind, _, detail = form.partition(" ")
    if kind == "folder":
        return str(write_folder(root / "folder", pictures))
    if kind == "shards":
        return write_shards(root / form.replace(" ", "-"), pictures, 3, detail or "cls")
    if kind == "archive":
        return str(write_members(root / "archive.tar", [(f"./set/{p.name}", p.content) for p in pictures]))
    name, _, _ = form.partition(".")
    return str(write_table(root / form, table_of(pictures, hub=name == "table", names=name == "named")))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("forms")
    for form in FORMS:
        make(form, root)
    return root


def source_of(form: str, root: Path) -> str:
    kind = form.partition(" ")[0]
    if kind == "shards":
        return f"{root}/{form.replace(' ', '-')}/part-{{000..002}}.tar"
    return f"{root}/{ {'folder': 'folder', 'archive': 'archive.tar'}.get(form, form) }"


def opened(source: Any, **options: Any) -> Feed:
    return open_data(source, INPUTS, PRESETS["raw"], DataOptions(threads=3, batch_size=4, **options))[0]


def values(feed: Feed, start: int = 0) -> np.ndarray[Any, Any]:
    return np.concatenate([portion.batch["image"] for portion in feed.portions(start)])


def labels_of(source: str, feed: Feed, **more: Any) -> tuple[list[int], tuple[str, ...]]:
    found = open_labels(source, feed, LabelOptions(**more), LabelTask(3))
    assert found is not None
    return [int(v) for portion in feed.portions() for v in found.of(portion)], found.names


@pytest.mark.parametrize("form", FORMS)
def test_the_same_samples_in_every_form(form: str, root: Path) -> None:
    plain, feed = opened(source_of("folder", root), whole=True), opened(source_of(form, root), whole=True)
    assert np.array_equal(values(plain), values(feed))
    assert plain.identity() == feed.identity()
    assert len(set(feed.names or ())) == len(PICTURES)
    assert np.array_equal(values(feed, 8), values(plain)[8:])
    some = opened(source_of(form, root), limit=5, shuffle=True, seed=2)
    assert np.array_equal(values(some), values(opened(source_of("folder", root), limit=5, shuffle=True, seed=2)))
    assert feed.stamps() == opened(source_of(form, root), whole=True).stamps() != some.stamps()


@pytest.mark.parametrize("form", FORMS)
def test_labels_are_found_in_every_form(form: str, root: Path) -> None:
    source = source_of(form, root)
    found, names = labels_of(source, opened(source, whole=True))
    assert found == [picture.label for picture in PICTURES]
    assert names in (CLASSES, ())
    assert (names == ()) == (form in ("shards", "shards json", "plain.parquet"))


@pytest.fixture(scope="module")
def stores(root: Path) -> Iterator[Callable[[str], str]]:
    """The same files below a URL of every store: kind → URL."""
    import fsspec

    with pytest.MonkeyPatch.context() as patch, s3_store(patch) as bucket:
        web = WebStore(root)
        for target in ("memory://forms", bucket):
            system, path = fsspec.core.url_to_fs(target)
            system.put(f"{root}/", f"{path}/", recursive=True)
        urls = {"memory": "memory://forms", "s3": bucket, "file": f"file://{root}", "https": web.url}
        yield urls.__getitem__
        web.close()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("store", ["memory", "s3", "file", "https"])
def test_the_same_samples_in_every_store(store: str, form: str, root: Path, stores: Callable[[str], str]) -> None:
    source = source_of(form, root).replace(str(root), stores(store))
    plain, feed = opened(source_of("folder", root), whole=True), opened(source, whole=True)
    assert np.array_equal(values(plain), values(feed))
    assert labels_of(source, feed)[0] == [picture.label for picture in PICTURES]
    identity = feed.identity()
    assert identity == opened(source, whole=True).identity()
    assert (identity == plain.identity()) == (store == "https")  # which lists no versions
    assert bool(feed.stamps()) == (store != "https")
    few = opened(source, limit=4)
    assert np.array_equal(values(few), values(opened(source_of("folder", root), limit=4)))


@pytest.mark.parametrize("form", ["folder", "shards", "table.parquet", "table.arrow"])
def test_a_form_with_a_damaged_sample(form: str, tmp_path: Path) -> None:
    pictures = list(PICTURES)
    pictures[5] = Drawn(pictures[5].name, b"no image", pictures[5].label)
    source = make(form, tmp_path, pictures)
    with pytest.raises(DataError, match="1 of 23 samples cannot be read") as caught:
        values(opened(source, whole=True))
    name = (opened(source, whole=True).names or ())[5]
    assert caught.value.details[0].startswith(f"{name}: cannot identify image file")
    feed = opened(source, whole=True, skip_corrupt=True)
    assert len(values(feed)) == 22
    assert labels_of(source, feed)[0] == [p.label for p in pictures[:5] + pictures[6:]]
