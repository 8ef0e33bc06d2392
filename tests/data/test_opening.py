"""Calibration data from images, arrays, batches and iterables: always the same samples in order, or one clear error."""

from __future__ import annotations

import gc
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from quantkit.data import DataOptions, Feed, Portion, open_data
from quantkit.data.feed import Identifier, portion_digests
from quantkit.data.image_folder import list_images
from quantkit.data.peeking import PeekedFeed
from quantkit.errors import DataError, PreprocessError, QuantkitError, UsageError
from quantkit.preprocess import PRESETS, Preprocess
from quantkit.values import ModelInput, Selection, with_batch_axes

IMAGE = ModelInput("image", "float32", ("N", 3, 6, 5))
FIXED = ModelInput("image", "float32", (4, 3, 6, 5))
PAIR = (ModelInput("image", "float32", ("N", 2)), ModelInput("tokens", "int64", ("N", 3)))
RAW, UNIT = PRESETS["raw"], PRESETS["unit"]
RANDOM = np.random.default_rng(3)
PIXELS = RANDOM.integers(0, 256, (12, 6, 5, 3), dtype=np.uint8)
FLOATS = RANDOM.normal(size=(23, 3, 6, 5)).astype(np.float32)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    gc.collect()
    assert [t.name for t in threading.enumerate() if t.name.startswith("quantkit")] == []


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same samples as images, arrays and batches; one folder holds two files that are no images inside."""
    root = tmp_path_factory.mktemp("data")
    for i, pixels in enumerate(PIXELS):
        for folder in ("classes", "damaged"):
            path = root / folder / ["cat", "ant", "bee"][i % 3] / f"{i:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    (root / "damaged" / "ant" / "01.png").write_bytes(b"")
    (root / "damaged" / "cat" / "06.png").write_text("text")
    np.save(root / "floats.npy", FLOATS)
    np.savez(root / "floats.npz", image=FLOATS)
    np.savez_compressed(root / "compressed.npz", image=FLOATS, labels=np.arange(23))
    np.savez(root / "fortran.npz", x=np.asfortranarray(FLOATS), y=np.arange(23))
    np.save(root / "fortran.npy", np.asfortranarray(FLOATS))
    (root / "batches").mkdir()
    for i, start in enumerate(range(0, 23, 5)):
        np.savez(root / "batches" / f"{i}.npz", image=FLOATS[start : start + 5], label=np.zeros(1))
    return root


def opened(source: Any, *inputs: ModelInput, spec: Preprocess = RAW, **options: Any) -> Feed:
    return open_data(source, inputs or (IMAGE,), spec, DataOptions(**options))[0]


def arrays_of(feed: Feed, name: str = "image") -> NDArray[Any]:
    return np.concatenate([portion.batch[name] for portion in feed.portions()])


def same(left: list[Portion], right: list[Portion]) -> bool:
    return [(p.names, p.stop) for p in left] == [(p.names, p.stop) for p in right] and all(
        a.batch.keys() == b.batch.keys() and all(np.array_equal(a.batch[n], b.batch[n]) for n in a.batch)
        for a, b in zip(left, right, strict=True)
    )


SOURCES: dict[str, tuple[str, Preprocess]] = {
    "images": ("classes", UNIT),
    "images, some unreadable": ("damaged", UNIT),
    "npy": ("floats.npy", RAW),
    "npz": ("floats.npz", RAW),
    "npz, compressed": ("compressed.npz", RAW),
    "npz, columns first": ("fortran.npz", RAW),
    "npy, columns first": ("fortran.npy", RAW),
}


# Laws of every source ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SOURCES)
@given(
    limit=st.none() | st.integers(1, 30),
    shuffle=st.booleans(),
    seed=st.integers(0, 9),
    batch_size=st.none() | st.integers(1, 9),
    threads=st.integers(1, 6),
)
def test_what_is_yielded_depends_on_no_thread_and_goes_on_from_every_position(
    store: Path, kind: str, limit: int | None, shuffle: bool, seed: int, batch_size: int | None, threads: int
) -> None:
    path, spec = SOURCES[kind]
    options = {"limit": limit, "shuffle": shuffle, "seed": seed, "batch_size": batch_size, "skip_corrupt": True}
    alone = opened(store / path, spec=spec, threads=1, **options)
    whole = list(alone.portions())
    feed = opened(store / path, spec=spec, threads=threads, **options)
    assert same(list(feed.portions()), whole)
    assert feed.unreadable == alone.unreadable
    assert feed.samples == sum(p.samples for p in whole) + len(feed.unreadable)
    assert all(p.samples == feed.batch_size for p in whole[:-1])
    for i, portion in enumerate(whole):
        assert same(list(feed.portions(portion.stop)), whole[i + 1 :])
        assert all(a.dtype == np.float32 and a.flags.c_contiguous for a in portion.batch.values())


@pytest.mark.parametrize("source", ["batches", "list", "function"])
def test_made_batches_go_on_from_every_position(store: Path, source: str) -> None:
    made = [{"image": FLOATS[:4]}, {"image": FLOATS[4:5]}, {"image": FLOATS[5:11]}]
    feed = opened({"batches": store / "batches", "list": made, "function": lambda: iter(made)}[source])
    whole = list(feed.portions())
    assert [p.stop for p in whole] == list(range(1, len(whole) + 1))
    for i in range(len(whole) + 1):
        assert same(list(feed.portions(i)), whole[i:])


@given(
    batch_size=st.integers(1, 12),
    seed=st.integers(0, 99),
    kind=st.sampled_from(["images", "npy", "npz, compressed"]),
)
def test_content_ignores_order_and_batches_and_order_does_not(
    store: Path, batch_size: int, seed: int, kind: str
) -> None:
    path, spec = SOURCES[kind]
    plain = opened(store / path, spec=spec, batch_size=5)
    other = opened(store / path, spec=spec, batch_size=batch_size, shuffle=True, seed=seed)
    sorted_, mixed = plain.identity(), other.identity()
    assert sorted_ is not None
    assert mixed is not None
    assert (sorted_.content, sorted_.samples) == (mixed.content, mixed.samples)
    assert sorted_.order != mixed.order
    assert opened(store / path, spec=spec, batch_size=5, threads=3).identity() == sorted_
    regrouped = opened(store / path, spec=spec, batch_size=4).identity()
    assert regrouped is not None
    assert (regrouped.content, regrouped.order == sorted_.order) == (sorted_.content, False)
    assert opened(store / path, spec=spec, limit=7).identity() != opened(store / path, spec=spec, limit=6).identity()


def test_the_same_rows_are_the_same_content_in_every_file(store: Path) -> None:
    kinds = ["npy", "npz", "npz, compressed", "npz, columns first", "npy, columns first"]
    feeds = [opened(store / SOURCES[kind][0], batch_size=5) for kind in kinds] + [opened(store / "batches")]
    assert all(np.array_equal(arrays_of(feed), FLOATS) for feed in feeds)
    assert len({feed.identity() for feed in feeds}) == 1
    changed = FLOATS.copy()
    changed[-1, -1, -1, -1] += 1
    streamed = Identifier()
    streamed.add(portion_digests(Portion({"image": changed}, ("",) * len(changed), 1)))
    assert streamed.identity().content != feeds[0].identity().content  # type: ignore[union-attr]


def test_copies_are_more_content_than_one() -> None:
    def content(*rows: int) -> str:
        identifier = Identifier()
        identifier.add(portion_digests(Portion({"image": FLOATS[list(rows)]}, ("",) * len(rows), 1)))
        return identifier.identity().content

    assert len({content(*rows) for rows in ((0,), (0, 0), (1, 1), (0, 0, 0), (0, 0, 1), (1,))}) == 6
    assert content(0, 1) == content(1, 0)


def test_dtype_and_shape_are_part_of_the_content() -> None:
    zeros = np.zeros((1, 4)), np.zeros((1, 2, 2)), np.zeros((1, 4), np.int64)
    assert len({portion_digests(Portion({"x": array}, ("",) * len(array), 1))[0] for array in zeros}) == 3


@given(samples=st.integers(1, 2000), limit=st.integers(1, 2500), seed=st.integers(0, 5))
def test_a_selection_is_spread_evenly_and_shuffled_without_repeats(samples: int, limit: int, seed: int) -> None:
    chosen = Selection(limit).of(samples)
    assert len(chosen) == min(limit, samples)
    gaps = np.diff([*chosen, samples + chosen[0]])
    assert gaps.min() >= 1
    assert gaps.max() - gaps.min() <= 1
    mixed = Selection(limit, shuffle=True, seed=seed).of(samples)
    assert sorted(mixed) == chosen
    assert mixed == Selection(limit, shuffle=True, seed=seed).of(samples)
    assert samples < 20 or len(chosen) < 20 or mixed != Selection(limit, shuffle=True, seed=seed + 1).of(samples)


# Images -----------------------------------------------------------------------------------------------------------


def test_links_are_followed_and_a_link_to_a_folder_around_it_ends_there(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "x.PNG").touch()
    (tmp_path / "a" / "y.png").symlink_to(tmp_path / "a" / "b" / "x.PNG")
    (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "nothing.png")
    (tmp_path / "a" / "gone").symlink_to(tmp_path / "nothing")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "c").symlink_to("a/b")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "b" / "here").symlink_to(".")
    folder = list_images(tmp_path)
    assert folder.names == ("a/b/x.PNG", "a/y.png")
    assert folder.classes == ("a",)
    assert folder.others == 1


def test_no_folder_is_read_twice_however_they_link_to_each_other(tmp_path: Path) -> None:
    names = [f"{k:02}" for k in range(20)]
    for place in ("inside", "outside"):
        for name in names:
            folder = tmp_path / place / name
            folder.mkdir(parents=True)
            (folder / f"{name}.png").touch()
            for other in names:
                (folder / f"to-{other}").symlink_to(tmp_path / place / other)
    every = tuple(f"{name}/{name}.png" for name in names)
    assert list_images(tmp_path / "inside").names == every
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "all").symlink_to(tmp_path / "outside")
    (tmp_path / "linked" / "one").symlink_to(tmp_path / "outside" / "03")
    found = list_images(tmp_path / "linked").names
    assert sorted(name.rsplit("/", 1)[1] for name in found) == [f"{name}.png" for name in names]


def test_class_folders_that_are_links_are_as_good_as_others(store: Path, tmp_path: Path) -> None:
    for name in ("ant", "bee", "cat"):
        (tmp_path / name).symlink_to(store / "classes" / name)
    linked, plain = (opened(root, spec=UNIT) for root in (tmp_path, store / "classes"))
    assert (linked.names, linked.identity()) == (plain.names, plain.identity())
    assert np.array_equal(arrays_of(linked), arrays_of(plain))


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "locked").mkdir()
    scan = os.scandir

    def refused(path: Path) -> Any:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr("quantkit.data.image_folder.os.scandir", refused)
    with pytest.raises(DataError, match="locked: Permission denied"):
        list_images(tmp_path)


def test_a_folder_is_read_recursively_sorted_without_hidden_and_other_files(store: Path, tmp_path: Path) -> None:
    for name in ("b/2.PNG", "b/10.jpeg", "a/deep/er/1.png", "c.jpg", ".git/1.png", "a/.thumb.png", "._c.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS[0]).save(tmp_path / name)
    (tmp_path / "b" / "notes.txt").touch()
    (tmp_path / "empty.png").mkdir()
    folder = list_images(tmp_path)
    assert folder.names == ("a/deep/er/1.png", "b/10.jpeg", "b/2.PNG", "c.jpg")
    assert (folder.classes, folder.labels, folder.others) == ((), (), 1)
    feed = opened(tmp_path, spec=UNIT)
    assert [n for p in feed.portions() for n in p.names] == list(folder.names)
    assert any("1 other file" in note for note in feed.notes)
    assert opened(tmp_path / "c.jpg", spec=UNIT).samples == 1
    classes = list_images(store / "classes")
    assert classes.classes == ("ant", "bee", "cat")
    assert classes.labels == (0,) * 4 + (1,) * 4 + (2,) * 4


@given(limit=st.integers(1, 12))
def test_a_limit_takes_as_many_of_every_class(store: Path, limit: int) -> None:
    names = [n for p in opened(store / "classes", spec=UNIT, limit=limit).portions() for n in p.names]
    per_class = [sum(n.startswith(c) for n in names) for c in ("ant", "bee", "cat")]
    assert sum(per_class) == limit
    assert max(per_class) - min(per_class) <= 1


def test_by_default_512_images_and_a_note_about_the_rest(tmp_path: Path) -> None:
    np.save(tmp_path / "many.npy", np.zeros((600, 3, 6, 5), np.float32))
    feed = opened(tmp_path / "many.npy")
    assert (feed.samples, feed.batch_size) == (512, 32)
    assert any("512 of 600" in note for note in feed.notes)
    assert opened(tmp_path / "many.npy", limit=600).samples == 600
    assert opened(tmp_path / "many.npy", limit=600).notes == ()
    assert opened(tmp_path / "many.npy", limit=9).batch_size == 9


@pytest.mark.parametrize("spec", [UNIT, PRESETS["cifar10"], PRESETS["imagenet"], PRESETS["yolo"]])
@pytest.mark.parametrize("layout", ["HWC", "CHW"])
def test_uint8_images_in_arrays_are_prepared_as_the_same_images_in_files(
    store: Path, tmp_path: Path, spec: Preprocess, layout: str
) -> None:
    wide = ModelInput("image", "float32", ("N", 3, 9, 9))
    order = [int(Path(name).stem) for name in list_images(store / "classes").names]
    images = PIXELS[order]
    np.savez(tmp_path / "images.npz", image=images if layout == "HWC" else images.transpose(0, 3, 1, 2))
    from_files = arrays_of(opened(store / "classes", wide, spec=spec))
    assert np.array_equal(arrays_of(opened(tmp_path / "images.npz", wide, spec=spec)), from_files)


def test_grey_and_float_images_in_arrays(tmp_path: Path) -> None:
    grey = ModelInput("image", "float32", ("N", 1, 6, 5))
    for pixels in (PIXELS[..., 0], PIXELS[..., :1], PIXELS[..., 0].astype(np.float64), PIXELS[..., 0].astype(np.int32)):
        np.save(tmp_path / "grey.npy", pixels)
        values = arrays_of(opened(tmp_path / "grey.npy", grey, spec=UNIT))
        assert np.array_equal(values[:, 0], (PIXELS[..., 0] / 255).astype(np.float32))


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.zeros((2, 7, 5, 3), np.float32), "only uint8 images can be resized"),
        (np.zeros((2, 6, 5, 4), np.uint8), "not an image"),
        (np.zeros((2, 9), np.uint8), "not an image"),
        (np.full((2, 6, 5, 3), np.nan), "NaN"),
    ],
)
def test_arrays_that_are_no_images_are_refused_with_a_spec(tmp_path: Path, array: NDArray[Any], told: str) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(DataError, match=told):
        arrays_of(opened(tmp_path / "x.npy", spec=UNIT))


def test_all_unreadable_images_are_named_in_one_error(store: Path) -> None:
    with pytest.raises(DataError, match="2 of 12 samples") as caught:
        list(opened(store / "damaged", spec=UNIT, batch_size=2).portions())
    assert "ant/01.png: " in caught.value.problem
    assert "cat/06.png: " in caught.value.problem
    assert "--skip-corrupt" in caught.value.remedy


def test_unreadable_images_can_be_left_out_and_are_counted_once_a_pass(store: Path) -> None:
    feed = opened(store / "damaged", spec=UNIT, batch_size=4, skip_corrupt=True)
    for _ in range(2):
        portions = list(feed.portions())
        assert [p.samples for p in portions] == [4, 4, 2]
        assert [text.split(":")[0] for text in feed.unreadable] == ["ant/01.png", "cat/06.png"]


# Arrays and batches -----------------------------------------------------------------------------------------------


def test_several_inputs_are_found_by_name_beside_labels(tmp_path: Path) -> None:
    image, tokens = RANDOM.normal(size=(7, 2)), RANDOM.integers(0, 99, (7, 3))
    np.savez(tmp_path / "pair.npz", tokens=tokens, image=image, extra=np.zeros(3), y=np.arange(7))
    portions = list(opened(tmp_path / "pair.npz", *PAIR, batch_size=3).portions())
    assert [p.samples for p in portions] == [3, 3, 1]
    assert [p.names[0] for p in portions] == ["pair.npz[0]", "pair.npz[3]", "pair.npz[6]"]
    assert np.array_equal(np.concatenate([p.batch["image"] for p in portions]), image.astype(np.float32))
    assert np.array_equal(np.concatenate([p.batch["tokens"] for p in portions]), tokens)
    assert {a.dtype.name for p in portions for a in p.batch.values()} == {"float32", "int64"}


def test_a_folder_of_batches_is_taken_in_the_order_of_names_and_its_limit_counts_files(store: Path) -> None:
    feed = opened(store / "batches")
    assert feed.kind == "batches"
    assert [p.samples for p in feed.portions()] == [5, 5, 5, 5, 3]
    some = opened(store / "batches", limit=2)
    assert [p.names[0] for p in some.portions()] == ["0.npz[0]", "2.npz[0]"]
    assert "2 of 5 batches" in some.notes[0]
    mixed = [p.names[0] for p in opened(store / "batches", shuffle=True, seed=1).portions()]
    assert sorted(mixed) == [f"{i}.npz[0]" for i in range(5)] != mixed


def test_stamps_are_those_of_the_chosen_files_and_change_with_them(store: Path, tmp_path: Path) -> None:
    names = list_images(store / "classes").names
    assert [s.name for s in opened(store / "classes", spec=UNIT).stamps()] == list(names)
    assert [s.name for s in opened(store / "classes", spec=UNIT, limit=3).stamps()] == list(names[::4])
    assert [s.name for s in opened(store / "batches").stamps()] == [f"{i}.npz" for i in range(5)]
    assert opened([]).stamps() == ()
    path = tmp_path / "x.npy"
    np.save(path, FLOATS)
    before = opened(path).stamps()
    assert before[0].size == path.stat().st_size
    assert opened(path).stamps() == before
    os.utime(path, ns=(0, 1))
    assert opened(path).stamps() != before


def test_hidden_files_are_no_batches(store: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "0.npz", image=FLOATS)
    (tmp_path / "._0.npz").write_bytes(b"what a file system left behind")
    assert np.array_equal(arrays_of(opened(tmp_path)), FLOATS)


def test_an_empty_batch_is_passed_over(tmp_path: Path) -> None:
    for i, rows in enumerate((FLOATS[:2], FLOATS[:0], FLOATS[2:3])):
        np.savez(tmp_path / f"{i}.npz", image=rows)
    assert [p.samples for p in opened(tmp_path).portions()] == [2, 1]
    assert [p.samples for p in opened([FLOATS[:2], FLOATS[:0], FLOATS[2:3]]).portions()] == [2, 1]


SCALED = (ModelInput("image", "float32", ("N", 2)), ModelInput("scale", "float32", ()))


def test_an_input_without_batch_axis_stays_whole_when_a_batch_is_cut() -> None:
    made = [{"image": np.ones((4, 2), np.float32), "scale": np.float32(2)}] * 2
    portions = list(opened(made, *SCALED, limit=6).portions())
    assert [p.batch["image"].shape for p in portions] == [(4, 2), (2, 2)]
    assert [p.batch["scale"].shape for p in portions] == [(), ()]


def test_samples_are_counted_along_the_inputs_that_have_a_batch_axis() -> None:
    table = ModelInput("table", "float32", (100, 2))
    made = [{"image": np.ones((4, 2), np.float32), "table": np.zeros((100, 2), np.float32)}] * 9
    portions = list(opened(made, *with_batch_axes([SCALED[0], table]), limit=30).portions())
    assert [p.samples for p in portions] == [len(p.batch["image"]) for p in portions] == [4] * 7 + [2]


# Iterables --------------------------------------------------------------------------------------------------------


class Loader:
    """Like a data loader: iterable again and again, yields lists of inputs and labels."""

    def __iter__(self) -> Iterator[list[Any]]:
        return iter([[FLOATS[:4], np.arange(4)], [FLOATS[4:6], np.arange(2)]])


ITERABLES: dict[str, Callable[[], Any]] = {
    "mappings": lambda: [{"image": FLOATS[:4]}, {"image": FLOATS[4:6]}],
    "mappings with labels": lambda: [{"x": FLOATS[:4], "label": 0}, {"x": FLOATS[4:6], "label": 0}],
    "arrays": lambda: [FLOATS[:4], FLOATS[4:6]],
    "float64 arrays": lambda: (FLOATS[:4].astype(float), FLOATS[4:6].astype(float)),
    "pairs": lambda: [(FLOATS[:4], np.arange(4)), (FLOATS[4:6], np.arange(2))],
    "loader": Loader,
    "generator function": lambda: lambda: (FLOATS[s] for s in (slice(0, 4), slice(4, 6))),
    "generator": lambda: (FLOATS[s] for s in (slice(0, 4), slice(4, 6))),
}


@pytest.mark.parametrize("kind", ITERABLES)
def test_every_kind_of_iterable_gives_its_batches(kind: str) -> None:
    feed = opened(ITERABLES[kind]())
    assert (feed.kind, feed.samples, feed.identity()) == ("stream", None, None)
    portions = list(feed.portions())
    assert [p.samples for p in portions] == [4, 2]
    assert np.array_equal(np.concatenate([p.batch["image"] for p in portions]), FLOATS[:6])
    if kind == "generator":
        with pytest.raises(DataError, match="exhausted"):
            list(feed.portions())
    else:
        assert same(list(feed.portions()), portions)


@pytest.mark.parametrize("kind", ITERABLES)
def test_looking_at_the_first_batch_costs_no_batch(kind: str) -> None:
    peeked = PeekedFeed(opened(ITERABLES[kind]()))
    assert peeked.first is not None
    assert [p.samples for p in peeked.portions()] == [4, 2]
    peeked.close()


@given(limit=st.integers(1, 40), size=st.integers(1, 7))
def test_a_stream_ends_after_its_limit_with_a_batch_cut_and_draws_no_more(limit: int, size: int) -> None:
    drawn: list[int] = []

    def long() -> Iterator[NDArray[Any]]:
        for i in range(1000):
            drawn.append(i)
            yield np.full((size, 3, 6, 5), i, np.float32)

    portions = list(opened(long, limit=limit).portions())
    assert sum(p.samples for p in portions) == limit
    assert all(p.samples == size == len(p.batch["image"]) for p in portions[:-1])
    assert len(drawn) == -(-limit // size)


def test_several_inputs_come_as_mappings_or_in_order() -> None:
    image, tokens = np.ones((2, 2), np.float32), np.ones((2, 3), np.int64)
    for item in ({"tokens": tokens, "image": image}, (image, tokens), [image.tolist(), tokens.tolist()]):
        (portion,) = opened([item], *PAIR).portions()
        assert np.array_equal(portion.batch["image"], image)
        assert np.array_equal(portion.batch["tokens"], tokens)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    monkeypatch.chdir(tmp_path)
    names: list[str] = []

    def write(name: str, text: str) -> None:
        Path(f"{name}.py").write_text(text, encoding="utf-8")
        names.append(name)

    path = list(sys.path)
    yield write
    assert sys.path == path
    for name in names:
        sys.modules.pop(name, None)


def test_a_callable_is_found_in_the_working_directory(module: Callable[[str, str], None]) -> None:
    module("made_here", "import numpy as np\ndef batches():\n    yield np.ones((2, 3, 6, 5), np.float32)\nthree = 3\n")
    feed = opened("made_here:batches")
    assert [p.samples for p in feed.portions()] == [2]
    assert [p.samples for p in feed.portions()] == [2]
    for wrong in ("made_here:three", "made_here:absent", "not_made_here:batches"):
        with pytest.raises(UsageError, match=wrong):
            opened(wrong)


@pytest.mark.parametrize("missing", ["absent_library", "made"])
def test_what_a_module_itself_misses_is_not_said_of_the_module(
    missing: str, module: Callable[[str, str], None]
) -> None:
    module("made_there", f"import {missing}\n")
    with pytest.raises(UsageError, match=f"made_there cannot be imported: ModuleNotFoundError.*'{missing}'") as caught:
        opened("made_there:batches")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("def batches(:\n", r"SyntaxError: .*\(made_wrong\.py, line 1\)"),
        ("raise ValueError('one\\ntwo')", r"ValueError: one \(made_wrong\.py, line 1\)\n"),
        ("raise SystemExit(0)", "SystemExit: 0"),
    ],
)
def test_a_module_that_cannot_be_imported_is_told_with_its_line(
    text: str, told: str, module: Callable[[str, str], None]
) -> None:
    module("made_wrong", text)
    with pytest.raises(UsageError, match=f'data="made_wrong:batches": made_wrong cannot be imported: {told}'):
        opened("made_wrong:batches")


@pytest.mark.parametrize(
    ("then", "told"),
    [
        ("raise KeyError('boxes')", r"batch 2 of the stream: KeyError: 'boxes' \(made_badly\.py, line 4\)"),
        ("raise SystemExit(0)", r"batch 2 of the stream: SystemExit: 0 \(made_badly\.py, line 4\)"),
        ("np.ones((2, 3)) @ np.ones((2, 3))", r"ValueError: .* \(made_badly\.py, line 4\)"),
    ],
)
def test_code_that_makes_batches_and_fails_is_one_clear_line(
    then: str, told: str, module: Callable[[str, str], None]
) -> None:
    text = "import numpy as np\ndef batches():\n    yield np.ones((2, 3, 6, 5), np.float32)\n"
    module("made_badly", f"{text}    {then}\ndef none(): pass\n")
    with pytest.raises(DataError, match=told) as caught:
        list(opened("made_badly:batches").portions())
    assert caught.value.__cause__ is not None
    with pytest.raises(DataError, match="callable returned a value of type NoneType"):
        list(opened("made_badly:none").portions())


# Fixed batches ----------------------------------------------------------------------------------------------------


def test_a_fixed_batch_is_filled_by_rounding_the_number_of_samples_down(store: Path) -> None:
    feed = opened(store / "floats.npz", FIXED)
    assert (feed.samples, feed.batch_size) == (20, 4)
    assert "20 of 23 samples" in feed.notes[0]
    assert [p.batch["image"].shape for p in feed.portions()] == [(4, 3, 6, 5)] * 5
    assert opened(store / "floats.npz", FIXED, limit=8).samples == 8
    assert opened(store / "floats.npz", FIXED, limit=8, batch_size=4).samples == 8
    assert opened(store / "floats.npz", FIXED, limit=8, batch_size=4).notes == ()


@pytest.mark.parametrize(
    ("options", "told"),
    [({"limit": 6}, "--limit 4"), ({"limit": 3}, "at least 4 samples"), ({"batch_size": 2}, "--batch-size")],
)
def test_what_does_not_fill_a_fixed_batch_is_refused(store: Path, options: dict[str, int], told: str) -> None:
    with pytest.raises(UsageError) as caught:
        opened(store / "floats.npz", FIXED, **options)
    assert told in caught.value.remedy


def test_a_fixed_batch_is_never_cut_in_a_stream() -> None:
    made = [FLOATS[i : i + 4] for i in range(0, 20, 4)]
    try:
        shapes = [p.batch["image"].shape for p in opened(made, FIXED, limit=6).portions()]
    except UsageError:
        shapes = []
    assert set(shapes) <= {(4, 3, 6, 5)}
    wide = ModelInput("image", "float32", (100, 1))
    hundreds = [np.zeros((100, 1), np.float32)] * 6
    assert [p.batch["image"].shape for p in opened(hundreds, wide).portions()] == [(100, 1)] * 5
    with pytest.raises(DataError, match=r"\[3, 3, 6, 5\]"):
        list(opened([FLOATS[:3]], FIXED).portions())


def test_a_fixed_batch_stays_full_where_images_are_left_out(store: Path) -> None:
    fixed = ModelInput("image", "float32", (3, 3, 6, 5))
    portions = list(opened(store / "damaged", fixed, spec=UNIT, skip_corrupt=True).portions())
    assert [p.samples for p in portions] == [3, 3, 3]


# Errors -----------------------------------------------------------------------------------------------------------


def holding_nan() -> NDArray[np.float32]:
    rows = FLOATS.copy()
    rows[5, 1] = np.nan
    return rows


WRONG_ROWS: dict[str, tuple[Any, str]] = {
    "NaN": (holding_nan(), r"NaN or Inf"),
    "infinite": (np.full((3, 3, 6, 5), np.inf, np.float32), r"NaN or Inf"),
    "too large for the type": (np.full((3, 3, 6, 5), 1e300), r"image"),
    "wrong shape": (FLOATS[:, :2], r"\[1, 2, 6, 5\]|\[23, 2, 6, 5\]"),
    "wrong rank": (FLOATS[:, 0], r"but the model takes image float32 \[.,3,6,5\]"),
    "complex": (FLOATS.astype(complex), "complex128"),
    "text": (np.full((3, 3, 6, 5), "a"), "<U1"),
}


@pytest.mark.parametrize("form", ["npy", "npz", "batches", "stream"])
@pytest.mark.parametrize("kind", WRONG_ROWS)
def test_wrong_rows_are_refused_with_place_and_input(tmp_path: Path, kind: str, form: str) -> None:
    rows, told = WRONG_ROWS[kind]
    np.save(tmp_path / "x.npy", rows)
    np.savez(tmp_path / "x.npz", image=rows)
    (tmp_path / "batches").mkdir()
    np.savez(tmp_path / "batches" / "x.npz", image=rows)
    source = {"npy": tmp_path / "x.npy", "npz": tmp_path / "x.npz", "batches": tmp_path / "batches", "stream": [rows]}
    with pytest.raises(DataError, match=told) as caught:
        list(opened(source[form]).portions())
    assert "'image'" in caught.value.problem
    place = {"batches": "x.npz", "stream": "batch 1 of the stream"}.get(form, f"x.{form}[")
    assert place in caught.value.problem
    if kind == "NaN":
        assert f"x.{form}[5]" in caught.value.problem or "sample 5" in caught.value.problem


WRONG_VALUES = [
    ("int64", np.array([[0.5]]), "float64"),
    ("int64", np.array([[1.0]], np.float32), "float32"),
    ("int32", np.array([[1 << 40]]), "int64"),
    ("int8", np.array([[200]], np.uint8), "uint8"),
    ("uint8", np.array([[-1]], np.int8), "int8"),
    ("float16", np.array([[70000]]), "int64"),
    ("float16", np.array([[70000.0]], np.float32), "float32"),
    ("bool", np.array([[2]]), "int64"),
]


@pytest.mark.parametrize(("wanted", "array", "told"), WRONG_VALUES)
def test_values_that_would_not_survive_the_inputs_type_are_refused(wanted: str, array: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        list(opened([array], ModelInput("x", wanted, ("N", 1))).portions())


FROM_INTEGERS = [(w, g) for w in ("float32", "float16", "int32", "int64") for g in ("uint8", "int16", "int64", "bool")]
FROM_FLOATS = [(w, g) for w in ("float32", "float16") for g in ("float16", "float32", "float64")]


@pytest.mark.parametrize(("wanted", "given_"), FROM_INTEGERS + FROM_FLOATS)
def test_values_that_survive_are_converted(wanted: str, given_: str) -> None:
    (portion,) = opened([np.array([[1], [0]], given_)], ModelInput("x", wanted, ("N", 1))).portions()
    assert portion.batch["x"].dtype == wanted
    assert portion.batch["x"].tolist() == [[1], [0]]


def test_missing_inputs_and_lengths_that_disagree_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", image=np.zeros((2, 2), np.float32), words=np.zeros((2, 3), int))
    with pytest.raises(DataError, match=r"no array for input 'tokens'; it has 'image', 'words'"):
        opened(tmp_path / "x.npz", *PAIR)
    with pytest.raises(DataError, match=r"'tokens'"):
        list(opened([{"image": np.zeros((2, 2), np.float32)}], *PAIR).portions())
    np.savez(tmp_path / "y.npz", image=np.zeros((2, 2), np.float32), tokens=np.zeros((3, 3), int))
    for source in (tmp_path / "y.npz", [dict(np.load(tmp_path / "y.npz"))]):
        with pytest.raises(DataError, match=r"'image': 2, 'tokens': 3"):
            list(opened(source, *PAIR).portions())
    for item in (3, "text", None, (1, 2, 3)):
        with pytest.raises(DataError, match="batch 1 of the stream"):
            list(opened([item], *PAIR).portions())


def test_places_where_no_data_is_are_refused(store: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "mixed").mkdir()
    np.savez(tmp_path / "mixed" / "0.npz", image=FLOATS)
    Image.fromarray(PIXELS[0]).save(tmp_path / "mixed" / "0.png")
    (tmp_path / "notes.md").touch()
    np.save(tmp_path / "none.npy", FLOATS[:0])
    np.save(tmp_path / "scalar.npy", np.float32(1))
    for name, told in {
        "empty": "no images in",
        "absent": "does not exist",
        "mixed": r"both images \(1\) and .npz batches \(1\)",
        "notes.md": "neither an image, nor",
        "none.npy": "empty",
        "scalar.npy": "empty",
    }.items():
        with pytest.raises(DataError, match=told):
            opened(tmp_path / name)
    with pytest.raises(DataError, match="images feed one"):
        opened(store / "classes", *PAIR)
    with pytest.raises(PreprocessError, match="not an image"):
        opened(store / "classes", PAIR[0])
    with pytest.raises(UsageError, match="data is of type int"):
        opened(3)
    with pytest.raises(UsageError, match=r"data is one array, \[5, 3, 8, 8\]"):
        opened(np.zeros((5, 3, 8, 8), np.float32))


@pytest.mark.parametrize(
    ("source", "options"),
    [
        ("batches", {"spec": UNIT}),
        ("batches", {"batch_size": 2}),
        ([], {"spec": UNIT}),
        ([], {"batch_size": 2}),
        ([], {"shuffle": True}),
        ([], {"limit": 0}),
        ([], {"threads": 0}),
    ],
)
def test_options_that_a_source_cannot_honour_are_refused(store: Path, source: Any, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        opened(store / source if isinstance(source, str) else source, **options)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    objects = np.array([{"a": 1}, None], dtype=object)
    np.save(tmp_path / "x.npy", objects)
    np.savez(tmp_path / "x.npz", image=objects)
    (tmp_path / "batches").mkdir()
    np.savez(tmp_path / "batches" / "x.npz", image=objects)
    for name in ("x.npy", "x.npz", "batches"):
        with pytest.raises(DataError, match=r"x\.np"):
            list(opened(tmp_path / name).portions())


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scratch")
    (folder / "batches").mkdir()
    return folder


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("floats.npy", "x.npy"),
        ("floats.npz", "x.npz"),
        ("compressed.npz", "x.npz"),
        ("compressed.npz", "batches/x.npz"),
        ("floats.npz", "x.npy"),
        ("floats.npy", "x.npz"),
        ("floats.npy", "batches/x.npz"),
    ],
)
@given(keep=st.floats(0, 1), changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=3))
def test_a_damaged_file_gives_arrays_or_an_error_of_ours(
    store: Path, scratch: Path, name: str, where: str, keep: float, changes: list[tuple[float, int]]
) -> None:
    content = bytearray((store / name).read_bytes())
    content = content[: int(keep * len(content))] if keep > 0.1 else content
    for place, value in changes:
        content[int(place * min(len(content), 200))] = value
    (scratch / where).write_bytes(content)
    try:
        told = str(arrays_of(opened(scratch / (where if where[0] == "x" else "batches"))).shape[1:])
    except QuantkitError as error:
        told = error.problem
    assert told == "(3, 6, 5)" or "x.np" in told or "the data set is empty" in told


@pytest.mark.parametrize("keep", [0, 1, 100, 500, -1])
@pytest.mark.parametrize("name", ["floats.npz", "compressed.npz"])
def test_a_truncated_archive_is_refused_by_name(store: Path, tmp_path: Path, name: str, keep: int) -> None:
    (tmp_path / "cut").mkdir()
    for path in (tmp_path / "cut.npz", tmp_path / "cut" / "cut.npz"):
        path.write_bytes((store / name).read_bytes()[:keep])
    for source in (tmp_path / "cut.npz", tmp_path / "cut"):
        with pytest.raises(DataError, match=r"cut\.npz"):
            list(opened(source).portions())


@pytest.mark.parametrize("kind", SOURCES)
def test_an_abandoned_pass_leaves_no_thread_and_no_file(store: Path, kind: str) -> None:
    path, spec = SOURCES[kind]
    with warnings.catch_warnings(record=True) as leaks:
        warnings.simplefilter("always")
        portions = opened(store / path, spec=spec, batch_size=2, threads=4, skip_corrupt=True).portions()
        next(portions)
        assert any(t.name.startswith("quantkit-decode") for t in threading.enumerate())
        del portions
        gc.collect()
    assert not any(t.name.startswith("quantkit-decode") for t in threading.enumerate())
    assert [str(leak.message) for leak in leaks] == []


def test_a_network_without_inputs_takes_no_data() -> None:
    with pytest.raises(DataError, match="the network has no inputs"):
        open_data([{"x": FLOATS}], (), RAW, DataOptions())
