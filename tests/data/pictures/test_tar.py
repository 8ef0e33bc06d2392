"""Archives: samples by the names of their members, labels beside them, and what is wrong with a damaged one."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantkit.data import DataOptions, Feed, open_data
from quantkit.data.data_file import file_at
from quantkit.data.labels import LabelOptions, LabelTask, open_labels
from quantkit.data.pictures.extents import KEPT, LARGEST_GAP, LARGEST_PIECE, ExtentReader
from quantkit.data.pictures.tar_index import index_tar, split_key
from quantkit.data.pictures.tar_samples import TarSamples
from quantkit.errors import DataError
from quantkit.preprocess import PRESETS
from quantkit.values import ModelInput
from tests.support.picture_forms import draw, write_members

INPUTS = (ModelInput("image", "float32", ("N", 3, 6, 5)),)
PNG = [picture.content for picture in draw(6)]


def opened(path: Any) -> Feed:
    return open_data(path, INPUTS, PRESETS["raw"], DataOptions(whole=True, threads=2))[0]


def labels(path: Path, feed: Feed) -> list[int]:
    found = open_labels(path, feed, LabelOptions(), LabelTask(3))
    assert found is not None
    return [int(v) for portion in feed.portions() for v in found.of(portion)]


def test_members_of_one_sample_belong_together(tmp_path: Path) -> None:
    path = write_members(
        tmp_path / "a.tar",
        [
            ("x/1.png", PNG[0]), ("x/1.cls", b"2"), ("x/1.json", b'{"label": 0}'),
            ("x/2.seg.png", PNG[1]), ("x/2.jpg", PNG[2]), ("x/2.json", b'{"label": 1, "id": 7}'),
            ("x/notes.txt", b"text"),
            ("y/1.input.png", PNG[3]), ("y/1.cls", b"0\n"),
        ],
    )  # fmt: skip
    feed = opened(path)
    assert feed.names == ["a.tar/x/1.png", "a.tar/x/2.jpg", "a.tar/y/1.input.png"]
    assert labels(path, feed) == [2, 1, 0]


@given(st.text("ab./_", min_size=1, max_size=8))
def test_a_key_and_its_ending_are_the_name(name: str) -> None:
    key, ending = split_key(name)
    assert name in (key, f"{key}.{ending}")
    assert "." not in key.rpartition("/")[2]


@pytest.mark.parametrize(
    ("members", "fault"),
    [
        ([("1.png", 0), ("2.png", 1), ("1.png", 2)], "1 comes twice"),
        ([("1.png", 0), ("1.jpg", 1)], r"1\.png and 1\.jpg belong to one sample"),
        ([("1.txt", 0)], "the data set is empty"),
    ],
)
def test_an_archive_that_is_not_clear(members: list[tuple[str, int]], fault: str, tmp_path: Path) -> None:
    path = write_members(tmp_path / "a.tar", [(name, PNG[number]) for name, number in members])
    with pytest.raises(DataError, match=fault):
        opened(path)


def test_labels_that_some_samples_lack(tmp_path: Path) -> None:
    path = write_members(tmp_path / "a.tar", [("1.png", PNG[0]), ("1.cls", b"0"), ("2.png", PNG[1])])
    with pytest.raises(DataError, match=r"a\.tar/2\.png has no label in the archive; 1 of 2 samples have one"):
        labels(path, opened(path))
    named = [("1.png", PNG[0]), ("1.cls", b"x"), ("2.png", PNG[1]), ("2.cls", b"y"), ("3.png", PNG[2])]
    path = write_members(tmp_path / "c.tar", named)
    found = TarSamples([file_at(path, "c.tar")], "c.tar").labels(range(2), None)
    assert found is not None
    assert found.every == ("x", "y")
    path = write_members(tmp_path / "b.tar", [("1.png", PNG[0]), ("1.json", b"{")])
    with pytest.raises(DataError, match=r"b\.tar, 1\.json: Expecting"):
        opened(path)


def refusal(path: Path) -> str | None:
    """The problem with an archive; None if it is opened."""
    try:
        opened(path)
    except DataError as error:
        return error.problem
    return None


def test_every_truncation_is_found(tmp_path: Path) -> None:
    """An archive that was cut off anywhere is an error or a note; never is it silently a shorter one."""
    whole = write_members(tmp_path / "whole.tar", [(f"{n}.png", PNG[n]) for n in range(3)])
    content, count = whole.read_bytes(), 3
    used = max(sample.stop for sample in index_tar(file_at(whole, "whole.tar")).samples)
    for length in range(0, used + 1024, 77):
        path = tmp_path / f"{length}.tar"
        path.write_bytes(content[:length])
        found = refusal(path)
        if found is not None:
            assert str(path) in found or found == "the data set is empty"
            continue
        feed = opened(path)
        assert len(feed.names or ()) == count or "may have been cut off" in feed.notes[0]


def test_what_is_no_plain_archive(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"text " * 300)
    with pytest.raises(DataError, match=r"a\.tar is damaged, or no \.tar archive"):
        opened(tmp_path / "a.tar")
    folder = tmp_path / "packed"
    folder.mkdir()
    plain = write_members(tmp_path / "b.tar", [("1.png", PNG[0])])
    (folder / "a.tar.gz").write_bytes(gzip.compress(plain.read_bytes()))
    with pytest.raises(DataError, match="is compressed") as caught:
        opened(str(folder / "a.tar.gz"))
    assert "gunzip" in caught.value.remedy


def test_an_archive_does_not_end_at_a_damaged_header(tmp_path: Path) -> None:
    whole = write_members(tmp_path / "whole.tar", [(f"{n}.png", PNG[n]) for n in range(3)])
    content = bytearray(whole.read_bytes())
    at = index_tar(file_at(whole, "whole.tar")).samples[1].start - tarfile.BLOCKSIZE
    content[at : at + 8] = b"\xff" * 8
    (tmp_path / "hurt.tar").write_bytes(content)
    with pytest.raises(DataError, match=f"is damaged: no header at byte {at:,}"):
        opened(tmp_path / "hurt.tar")
    (tmp_path / "joined.tar").write_bytes(2 * whole.read_bytes())
    with pytest.raises(DataError, match="several archives in one file"):
        opened(tmp_path / "joined.tar")


def test_long_names_and_other_members(tmp_path: Path) -> None:
    name = "/".join(["a long folder"] * 20) + "/1.png"
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / "a.tar", "w", format=form) as archive:
            folder = tarfile.TarInfo("a long folder")
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
            entry = tarfile.TarInfo(name)
            entry.size = len(PNG[0])
            archive.addfile(entry, io.BytesIO(PNG[0]))
            link = tarfile.TarInfo("2.png")
            link.type, link.linkname = tarfile.SYMTYPE, name
            archive.addfile(link)
        assert opened(tmp_path / "a.tar").names == [f"a.tar/{name}"]


def test_an_archive_that_changes_is_found(tmp_path: Path) -> None:
    path = write_members(tmp_path / "a.tar", [(f"{n}.png", PNG[n]) for n in range(3)])
    feed = opened(path)
    feed.identity()
    content = path.read_bytes()
    path.write_bytes(content.replace(PNG[1], PNG[1][:-20] + bytes(20)))
    with pytest.raises(DataError, match=r"a\.tar/1\.png changed during the run"):
        list(feed.portions())


class Counted:
    """A file that counts its requests."""

    def __init__(self, content: bytes) -> None:
        self.content, self.asked = content, list[tuple[int, int]]()

    def read(self, start: int, stop: int) -> bytes:
        self.asked.append((start, stop))
        return self.content[start:stop]


@given(st.lists(st.tuples(st.integers(0, 300_000), st.integers(1, 400_000)), min_size=1, max_size=30), st.randoms())
def test_neighbours_are_read_together(steps: list[tuple[int, int]], order: Any) -> None:
    extents, place = [], 0
    for gap, length in steps:
        extents.append((0, place + gap, place + gap + length))
        place += gap + length
    file = Counted(np.random.default_rng(0).bytes(place))
    reader = ExtentReader([file], extents)  # type: ignore[list-item]
    for number, (_, start, stop) in enumerate(extents):
        assert reader.read(number) == file.content[start:stop]
    assert len(file.asked) == len(set(file.asked))  # in order, nothing is read twice
    together = sum(gap <= LARGEST_GAP for gap, _ in steps[1:])
    large = sum(stop - start for start, stop in file.asked) // (LARGEST_PIECE // 2)
    assert len(file.asked) <= len(steps) - together + large + 1
    assert max(stop - start for start, stop in file.asked) <= max(LARGEST_PIECE, max(length for _, length in steps))
    numbers = list(range(len(extents)))
    order.shuffle(numbers)
    for number in numbers:
        assert reader.read(number) == file.content[extents[number][1] : extents[number][2]]
    assert len(reader._kept) <= KEPT
