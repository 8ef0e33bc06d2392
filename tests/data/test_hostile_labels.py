"""Files of class names and labels that nobody should have written: used, or refused in one short line, and at once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantkit.data.classes import class_indices, read_classes
from quantkit.data.labels import LabelOptions, LabelTask
from quantkit.data.labels.class_labels import check_labels
from quantkit.data.labels.label_table import read_label_table
from quantkit.errors import DataError
from quantkit.metrics.box_labels import read_coco, read_yolo

DEEP = "[" * 100_000
LONG = "9" * 5000
CLASSES = {
    "far.json": '{"cat": 1000000000000000000}', "far.csv": "cat,999999999999\n", "square.json": '{"²": ["a"]}',
    "digits.json": f'{{"cat": {LONG}}}', "digits.csv": f"cat,{LONG}\ndog,1\n", "square.csv": "cat,²\ndog,1\n",
    "minus.csv": "cat,-1\ndog,1\n", "minus.json": '{"cat": -1}', "deep.json": DEEP, "twice.json": '{"a": 0, "a": 1}',
    "field.csv": "a," + "x" * 200_000, "number.json": "3", "nan.json": '{"a": NaN}', "key.json": f'{{"{LONG}": ["a"]}}',
    "float.json": '{"cat": 1.5}', "null.json": '["a", null]', "lines.txt": "\n" * 2_000_000 + "a", "empty.txt": "\n \n",
    "bool.json": '{"cat": true}', "tail.json": '["a"] x', "nul.txt": "a\0b\n",
}  # fmt: skip
TABLES = {
    "field.csv": "a," + "x" * 200_000, "nul.csv": "a\0,1\n", "open.csv": 'a,1\n"b,2\n' + "c,3\n" * 40_000,
    "empty.csv": "", "one.csv": "a\n", "odd.json": "[]",
}  # fmt: skip
COCO = {
    "deep": DEEP, "digits": f'{{"images": {LONG}}}', "list": "[]", "text": '"a"', "null": "null",
    "id": '{"categories": [{"id": 1e999, "name": "a"}], "images": [], "annotations": []}',
    "list id": '{"categories": [{"id": 1, "name": "a"}], "images": [{"id": [], "file_name": "a"}], "annotations": []}',
    **{
        f"box {box}": '{"categories": [{"id": 1, "name": "a"}], "images": [{"id": 1, "file_name": "a"}], "annotations":'
        f' [{{"image_id": 1, "category_id": 1, "bbox": {box}}}]}}'
        for box in ('[0, 0, 1e999, 1]', '["nan", 0, 1, 1]', "[0, 0, -1, 1]", "3", '{"a": 1}', "[[], 0, 1, 1]")
    },
}  # fmt: skip
ENCODINGS = ["utf-16", "utf-32", "latin-1"]


def refused(read: Callable[[], Any], name: str) -> str:
    started = time.monotonic()
    with pytest.raises(DataError) as caught:
        read()
    assert time.monotonic() - started < 20
    assert name in caught.value.problem
    assert len(caught.value.problem) < 600
    return caught.value.problem


@pytest.mark.parametrize("name", CLASSES)
def test_class_names_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(CLASSES[name], encoding="utf-8")
    refused(lambda: read_classes(tmp_path / name), name)


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_labels_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(TABLES[name], encoding="utf-8")
    refused(lambda: read_label_table(tmp_path / name), name)


@pytest.mark.parametrize("content", COCO.values(), ids=COCO)
def test_coco_labels_are_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content, encoding="utf-8")
    refused(lambda: read_coco(tmp_path / "a.json"), "a.json")


@pytest.mark.parametrize(
    "line",
    [
        "² .5 .5 .1 .1",
        "٣ .5 .5 .1 .1",
        "1_0 .5 .5 .1 .1",
        "1 .5 .5 .1 0_1",
        f"{LONG} .5 .5 .1 .1",
        "99999999999999999999 .5 .5 .1 .1",
        "x" * 9999,
    ],
)
def test_yolo_labels_are_refused(line: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(line, encoding="utf-8")
    refused(lambda: read_yolo(tmp_path / "a.txt", (10, 10)), "a.txt")


READERS: dict[str, Callable[[Path], Any]] = {
    ".txt": read_classes, ".json": read_classes, ".csv": read_label_table, ".tsv": read_label_table,
    ".coco.json": read_coco, ".yolo.txt": lambda path: read_yolo(path, (9, 9)),
}  # fmt: skip


@pytest.mark.parametrize("suffix", READERS)
def test_what_is_no_text_or_no_file_is_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    for encoding in ENCODINGS:
        path.write_bytes("café,1\n".encode(encoding))
        refused(lambda: READERS[suffix](path), path.name)
    path.unlink()
    os.mkfifo(path)
    assert "a named pipe" in refused(lambda: READERS[suffix](path), path.name)
    path.unlink()
    path.mkdir()
    refused(lambda: READERS[suffix](path), path.name)
    path = tmp_path / f"big{suffix}"
    with open(path, "wb") as file:
        file.truncate(20 << 30)
    assert "larger than" in refused(lambda: READERS[suffix](path), path.name)


def test_a_byte_order_mark_and_any_line_end_are_fine(tmp_path: Path) -> None:
    for name, text in (("a.txt", "cat\ndog\x0cfox\n"), ("a.csv", "cat,0\ndog\x0cfox,1\n")):
        for end in ("\n", "\r\n", "\r"):
            (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.replace("\n", end).encode())
            assert read_classes(tmp_path / name).names == ("cat", "dog\x0cfox")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("texts")


@given(
    text=st.text(max_size=30) | st.from_regex(r"[0-9²٣]{1,30}"),
    suffix=st.sampled_from([".txt", ".json", ".csv", ".tsv"]),
)
def test_any_text_is_used_or_refused(folder: Path, text: str, suffix: str) -> None:
    path = folder / f"any{suffix}"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    for read in (read_classes, read_label_table):
        try:
            read(path)
        except DataError as error:
            assert str(path) in error.problem  # noqa: PT017


@given(st.lists(st.text("0123456789²٣abc", min_size=1, max_size=200), min_size=1, max_size=4, unique=True))
def test_class_folders_of_any_name_get_an_index_or_an_error(names: list[str]) -> None:
    try:
        found = class_indices(names, None, 4, "folder")
    except DataError:
        return
    assert sorted(found) == sorted(names)
    assert all(0 <= index < 4 for index in found.values())


@pytest.mark.parametrize(
    "values",
    [
        [np.nan, 1.0], [np.inf, 0.0], np.array([1, 2], "M8[s]"), np.array([1j, 0]), np.array([2**64 - 1, 0], np.uint64),
        np.zeros(2, [("a", int)]),
    ],
)  # fmt: skip
def test_arrays_that_are_no_class_indices_are_refused(values: Any) -> None:
    with pytest.raises(DataError, match="labels"):
        check_labels(np.asarray(values), ["a", "b"], "array 'labels'", LabelOptions(), LabelTask(5))
