"""Which files a path, a URL or a pattern stands for, and which part of a divided data set."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantkit.data import DataOptions, Feed, open_data
from quantkit.data.image_list import given_data
from quantkit.data.image_set import Split
from quantkit.data.pictures.find import data_name, find_pictures, is_divided
from quantkit.data.pictures.listing import expanded, fits, list_files
from quantkit.data.pictures.name_classes import folder_around, labels_in_names
from quantkit.data.pictures.splits import members_of
from quantkit.errors import DataError, UsageError
from quantkit.locations import write_object
from quantkit.preprocess import PRESETS
from quantkit.values import ModelInput
from tests.support.picture_forms import draw, write_folder, write_members, write_shards

pytest.importorskip("fsspec")
INPUTS = (ModelInput("image", "float32", ("N", 3, 6, 5)),)
PICTURES = draw(12)


def opened(source: Any, **options: Any) -> Feed:
    return open_data(source, INPUTS, PRESETS["raw"], DataOptions(**options))[0]


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@given(st.lists(st.sampled_from(["a", "-", "{0..3}", "{08..11}", "{3..1}", "{x,yz}", "{000..002}"]), max_size=4))
def test_braces_are_those_of_bash(parts: list[str]) -> None:
    text = "s" + "".join(parts)
    done = subprocess.run(["bash", "-c", f"echo {text}"], capture_output=True, text=True, check=True)
    assert list(expanded(text)) == done.stdout.split()


def test_stars_stay_in_a_folder() -> None:
    assert fits("a/b-1.tar", "a/*.tar")
    assert not fits("a/c/b-1.tar", "a/*.tar")
    assert fits("a/c/d/b-1.tar", "a/**/*.tar")


@given(st.lists(st.text("ab/", min_size=1, max_size=6), min_size=1, max_size=6))
def test_the_folder_around_names(names: list[str]) -> None:
    found = folder_around(names)
    assert all(name.startswith(found) for name in names)
    folders = {name[: k + 1] for name in names for k, letter in enumerate(name) if letter == "/"}
    assert found == max((f for f in folders if all(n.startswith(f) for n in names)), key=len, default="")


def test_classes_are_the_first_folders_that_differ() -> None:
    found = labels_in_names(["s/v/cat/1.png", "s/v/dog/x/2.png", "s/v/cat/3.png"], [1, 2], "s")
    assert found is not None
    assert (list(found.values), found.every) == (["dog", "cat"], ("cat", "dog"))
    assert labels_in_names(["cat/1.png", "2.png"], [0, 1], "s") is None
    assert labels_in_names(["cat/1.png", "cat/2.png"], [0, 1], "s") is None
    assert labels_in_names([], [], "s") is None


@pytest.mark.parametrize(
    ("names", "folders_only", "train", "val"),
    [
        (["train/a/1.png", "val/a/2.png", "val/b/train.png"], True, [0], [1, 2]),
        (["data/train-00000-of-00002.parquet", "data/test-00000-of-00001.parquet"], False, [0], [1]),
        (["train.tar", "validation.tar", "test.tar"], False, [0], [1]),
        (["train2017/1.png", "val2017/1.png"], True, [0], [1]),
        (["training-1.tar", "trainer.tar"], False, [0, 1], [0, 1]),
        (["train/1.png", "extra/2.png"], True, [0, 1], [0, 1]),
        (["a/train-1.png", "a/test-1.png"], True, [0, 1], [0, 1]),
    ],
)
def test_parts_by_names(names: list[str], folders_only: bool, train: list[int], val: list[int]) -> None:
    for split, expected in ((Split.TRAIN, train), (Split.VAL, val)):
        chosen, part = members_of(names, split, folders_only=folders_only)
        assert chosen == expected
        assert bool(part) == (train != val)


def test_a_divided_data_set_under_a_url(tmp_path: Path) -> None:
    write_folder(tmp_path / "set" / "train", PICTURES[:8])
    write_folder(tmp_path / "set" / "val", PICTURES[8:])
    url = f"file://{tmp_path}/set"
    assert is_divided(url)
    assert len(opened(url).names or ()) == 8
    feed = opened(url, whole=True)
    assert len(feed.names or ()) == 4
    assert feed.notes == ("val of set: 4 of 12 images",)
    write_shards(tmp_path / "shards", PICTURES)
    assert not is_divided(f"{tmp_path}/shards")
    assert data_name(url) == data_name(tmp_path / "set") == "set"


def test_lists_of_paths_and_urls(tmp_path: Path) -> None:
    write_folder(tmp_path / "set", PICTURES)
    write_object("memory://listed/9.png", PICTURES[9].content)
    lines = [f"file://{tmp_path}/set/{p.name}" for p in PICTURES[:3]] + [
        "",
        "set/" + PICTURES[4].name,
        "memory://listed/9.png",
    ]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    feed = opened(tmp_path / "list.txt")
    assert list(feed.names or ()) == [line for line in lines if line]
    assert feed.identity() == opened_identity(tmp_path, [0, 1, 2, 4, 9])
    write_object("memory://listed/list.txt", b"9.png\n")
    assert opened("memory://listed/list.txt").identity() == opened_identity(tmp_path, [9])
    given = given_data(lines[:3])
    assert opened(given).identity() == opened_identity(tmp_path, [0, 1, 2])
    with pytest.raises(UsageError, match="twice"):
        given_data([lines[0], lines[0]])
    for text, fault in (
        ("s3://a/b.tar", "line 1"),
        (f"{lines[0]}\n{lines[0]}", "there twice"),
        (f"{lines[0]}\nno.png", "line 2"),
    ):
        (tmp_path / "list.txt").write_text(text)
        with pytest.raises(DataError, match=fault):
            opened(tmp_path / "list.txt")


def opened_identity(root: Path, numbers: list[int]) -> Any:
    folder = write_folder(root / f"some-{len(numbers)}", [PICTURES[n] for n in numbers])
    return opened(folder).identity()


def test_what_is_not_there_or_not_clear(tmp_path: Path) -> None:
    write_members(tmp_path / "a.tar", [("1.png", PICTURES[0].content)])
    (tmp_path / ".other").mkdir()
    write_members(tmp_path / ".other" / "b.tar", [("2.png", PICTURES[1].content)])
    for source, fault in (
        (f"{tmp_path}/{{0..2}}.tar", r"0\.tar, of .*, does not exist"),
        (f"{tmp_path}/b*.tar", r"b\*\.tar fits no file"),
        (f"{tmp_path}/{{a,a}}.tar", "twice"),
        (f"{tmp_path}/{{a,.other/b,a}}.tar", r"a\.tar twice"),
        (f"{tmp_path}/{{0..99999999}}.tar", "100,000,000 files"),
        ("memory://nothing", "there is nothing at memory://nothing"),
    ):
        with pytest.raises(DataError, match=fault):
            opened(source)
    (tmp_path / "b.mp4").write_bytes(b"")
    with pytest.raises(DataError, match=r"holds \.tar archives \(1\) and videos \(1\)"):
        opened(tmp_path)
    assert [file.name for file in list_files(f"{tmp_path}/*.tar").files] == ["a.tar"]
    assert find_pictures(f"{tmp_path}/a.tar", Split.TRAIN).source == "a.tar"
