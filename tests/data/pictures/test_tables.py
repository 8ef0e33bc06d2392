"""Tables: which column holds the images and which the labels, rows by number, and what is wrong with a damaged one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantkit.data import DataOptions, Feed, open_data
from quantkit.data.classes import ClassNames, read_classes
from quantkit.data.labels import LabelOptions, LabelTask, open_labels
from quantkit.data.pictures import parquet_blocks
from quantkit.errors import DataError
from quantkit.preprocess import PRESETS
from quantkit.values import ModelInput
from tests.support.picture_forms import CLASSES, draw, table_of, write_table

pa = pytest.importorskip("pyarrow")
INPUTS = (ModelInput("image", "float32", ("N", 3, 6, 5)),)
PICTURES = draw(30)
BYTES = [picture.content for picture in PICTURES]
FORMS = ("parquet", "feather", "arrow")


def opened(path: Any, **options: Any) -> Feed:
    return open_data(path, INPUTS, PRESETS["raw"], DataOptions(**{"whole": True, "threads": 3, **options}))[0]


def labels(path: Path, classes: int | None = 3, names: ClassNames | None = None) -> Any:
    feed = opened(path)
    found = open_labels(path, feed, LabelOptions(classes=names), LabelTask(classes))
    return None if found is None else [int(v) for portion in feed.portions() for v in found.of(portion)]


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=10)
@given(rows=st.integers(1, 31), seed=st.integers(0, 99), limit=st.integers(1, 30))
def test_rows_are_found_in_blocks_of_any_size(form: str, rows: int, seed: int, limit: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet_blocks, "MOST_ROWS", max(1, rows // 2))
        path = write_table(Path(folder, f"a.{form}"), table_of(PICTURES), rows)
        feed = opened(path, limit=limit, shuffle=True, seed=seed)
        numbers = [int(name.split("[")[1][:-1]) for name in feed.names or ()]
        got = np.concatenate([portion.batch["image"] for portion in feed.portions()])
        whole = np.concatenate([portion.batch["image"] for portion in opened(path).portions()])
        assert np.array_equal(got, whole[numbers])
        feed.portions().close()  # type: ignore[attr-defined]


def test_the_column_of_images(tmp_path: Path) -> None:
    other = pa.array([b"x"] * 30)
    for number, (columns, expected) in enumerate(
        [
            ({"key": other, "image": BYTES}, None),
            ({"a": other, "b": BYTES}, "a, b could all be the images"),
            ({"a": list(range(30))}, "no column holds the bytes of images"),
            ({"picture_of_it": BYTES}, None),
        ]
    ):
        path = write_table(tmp_path / f"{number}.parquet", pa.table(columns))
        if expected is None:
            assert len(list(opened(path).portions())) == 1
        else:
            with pytest.raises(DataError, match=expected) as caught:
                opened(path)
            assert str(path) in caught.value.problem
            assert "its columns are a" in caught.value.problem


def test_the_column_of_labels(tmp_path: Path) -> None:
    numbers = [p.label for p in PICTURES]

    def written(name: str, **columns: Any) -> Path:
        return write_table(tmp_path / f"{name}.parquet", pa.table({"image": BYTES, **columns}))

    assert labels(written("a", Target=numbers)) == numbers
    assert labels(written("b", kind=[CLASSES[n] for n in numbers])) is None
    assert labels(written("c", category=[CLASSES[n] for n in numbers])) == numbers
    assert labels(written("d", label=numbers, category=["x"] * 30)) == numbers
    with pytest.raises(DataError, match=r"f\.parquet\[3\] has no value in column 'label'"):
        labels(written("f", label=[*numbers[:3], None, *numbers[4:]]))
    with pytest.raises(DataError, match=r"the label of g\.parquet\[0\] is -1"):
        labels(written("g", label=[-1] * 30))
    with pytest.raises(DataError, match=r"2 classes .*, but the network has 3"):
        labels(written("h", label=["cat"] * 29 + ["dog"]))


def test_the_fitting_one_of_several_label_columns(tmp_path: Path) -> None:
    features = {
        "image": {"_type": "Image"},
        "fine": {"_type": "ClassLabel", "names": list("abcde")},
        "coarse": {"_type": "ClassLabel", "names": list(CLASSES)},
    }
    table = pa.table({"image": BYTES, "fine": [n % 5 for n in range(30)], "coarse": [n % 3 for n in range(30)]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path = write_table(tmp_path / "a.feather", table)
    assert labels(path, 3) == [n % 3 for n in range(30)]
    assert labels(path, 5) == [n % 5 for n in range(30)]
    assert labels(path, 7) is None
    declared = opened(path).declared(7)
    assert declared is not None
    assert declared.missing == "its columns fine, coarse are all labels, and none fits the network alone"


def test_names_of_classes_are_brought_into_the_networks_order(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.parquet", table_of(PICTURES))
    (tmp_path / "classes.txt").write_text("cat\nant\nbee\n")
    order = {"cat": 0, "ant": 1, "bee": 2}
    found = labels(path, classes=3, names=read_classes(tmp_path / "classes.txt"))
    assert found == [order[CLASSES[p.label]] for p in PICTURES]


def test_dictionaries_in_arrow_files(tmp_path: Path) -> None:
    """pandas writes categories as dictionaries, which precede the batches of a stream."""
    table = pa.table({"image": BYTES, "label": pa.array([CLASSES[p.label] for p in PICTURES]).dictionary_encode()})
    for form in ("arrow", "feather"):
        assert labels(write_table(tmp_path / f"a.{form}", table)) == [p.label for p in PICTURES]


def test_rows_without_an_image(tmp_path: Path) -> None:
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": content, "path": None} for content in BYTES]
    rows[4] = {"bytes": None, "path": "cat/4.png"}
    path = write_table(tmp_path / "a.parquet", pa.table({"image": pa.array(rows, image)}))
    with pytest.raises(DataError) as caught:
        list(opened(path).portions())
    assert caught.value.details == ("a.parquet[4]: the table has no bytes of the image, only its path cat/4.png",)
    assert len(opened(path, skip_corrupt=True).names or ()) == 30


@pytest.mark.parametrize("form", FORMS)
def test_every_truncation_of_a_table_is_an_error(form: str, tmp_path: Path) -> None:
    content = write_table(tmp_path / f"whole.{form}", table_of(PICTURES)).read_bytes()
    for length in range(0, len(content) - 8, max(1, len(content) // 40)):
        path = tmp_path / f"{length}.{form}"
        path.write_bytes(content[:length])
        if form == "feather" and length > len(content) - 1200:
            continue  # within the footer, which is not needed
        with pytest.raises(DataError) as caught:
            opened(path)
        assert str(path) in caught.value.problem


def test_a_damaged_page_names_its_row(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.parquet", table_of(PICTURES), 10)
    content = bytearray(path.read_bytes())
    content[20:400] = bytes(380)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.parquet, row \d+: "):
        list(opened(path).portions())


def test_tables_that_differ(tmp_path: Path) -> None:
    write_table(tmp_path / "1.parquet", pa.table({"image": BYTES, "label": [0] * 30}))
    write_table(tmp_path / "2.parquet", pa.table({"img": BYTES, "label": [0] * 30}))
    with pytest.raises(DataError, match=r"its images in column 'img', 1\.parquet in 'image'"):
        opened(f"{tmp_path}/*.parquet")
    write_table(tmp_path / "2.parquet", pa.table({"image": BYTES}))
    with pytest.raises(DataError, match=r"2\.parquet has no column 'label'"):
        open_labels(f"{tmp_path}/*.parquet", opened(f"{tmp_path}/*.parquet"), LabelOptions(), LabelTask(3))


def test_a_folder_that_datasets_has_saved(tmp_path: Path) -> None:
    """`save_to_disk` of several splits: Arrow's streams, and files of a cache, which are no samples."""
    for split, part in (("train", PICTURES[:20]), ("test", PICTURES[20:])):
        folder = tmp_path / "set" / split
        for shard in range(2):
            write_table(folder / f"data-0000{shard}-of-00002.arrow", table_of(part[shard::2]))
        write_table(folder / "cache-1234.arrow", table_of(part))
        (folder / "state.json").write_text("{}")
    (tmp_path / "set" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert len(opened(tmp_path / "set", whole=False).names or ()) == 20
    assert len(opened(tmp_path / "set").names or ()) == 10
    assert opened(tmp_path / "set").notes == ("test of set: 2 of 4 tables",)
    assert len(opened(tmp_path / "set" / "train").names or ()) == 20
