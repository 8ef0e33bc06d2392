"""Labels: folders, tables, arrays and what comes along; every doubt is one error that names the sample."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from quantkit.data import DataOptions, Portion, open_data
from quantkit.data.classes import class_indices, read_classes
from quantkit.data.labels import LabelOptions, Labels, LabelTask, open_labels
from quantkit.errors import DataError
from quantkit.preprocess import PRESETS
from quantkit.values import ModelInput

INPUT = ModelInput("x", "float32", (None, 1, 2, 2))
WHOLE = DataOptions(whole=True, threads=1)


def images(root: Path, names: Sequence[str]) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2), 90).save(root / name)
    return root


def opened(source: Any, options: LabelOptions, task: LabelTask) -> tuple[Labels | None, list[Portion]]:
    spec = PRESETS["unit"] if isinstance(source, Path) and source.is_dir() else PRESETS["raw"]
    chosen = replace(WHOLE, batch_size=2) if isinstance(source, Path) else WHOLE
    feed, _ = open_data(source, [INPUT], spec, chosen)
    return open_labels(source, feed, options, task), list(feed.portions())


def read(source: Any, count: int | None = 3, indices: bool = True, **options: Any) -> tuple[list[Any], Labels]:
    labels, portions = opened(source, LabelOptions(**options), LabelTask(count, indices))
    assert labels is not None
    return np.concatenate([labels.of(p) for p in portions]).tolist(), labels


def classes(path: Path, content: Any) -> Any:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return read_classes(path)


def test_class_folders_are_classes_in_sorted_order(tmp_path: Path) -> None:
    found, labels = read(images(tmp_path, ["dog/1.png", "cat/1.png", "eel/1.png", "eel/deep/2.png"]))
    assert found == [0, 1, 2, 2]
    assert labels.names == ("cat", "dog", "eel")
    assert labels.notes == ()


def test_images_without_folders_have_no_labels(tmp_path: Path) -> None:
    labels, _ = opened(images(tmp_path, ["1.png", "cat/2.png"]), LabelOptions(), LabelTask(2))
    assert labels is None


@pytest.mark.parametrize(
    ("content", "suffix"),
    [
        ("eel\ncat\ndog\n", ".txt"),
        (["eel", "cat", "dog"], ".json"),
        ({"eel": 0, "cat": 1, "dog": 2}, ".json"),
        ({"0": "eel", "1": "cat", "2": "dog"}, ".json"),
        ({"0": ["eel", "Anguilla"], "1": ["cat", "Felis"], "2": ["dog", "Canis"]}, ".json"),
        ("name,index\ncat,1\neel,0\ndog,2\n", ".csv"),
        ("0,eel\n1,cat\n2,dog\n", ".csv"),
        ("eel Anguilla, an eel\ncat Felis\ndog Canis\n", ".txt"),
    ],
)
def test_a_class_map_says_which_folder_is_which_output(tmp_path: Path, content: Any, suffix: str) -> None:
    known = classes(tmp_path / f"map{suffix}", content)
    found, labels = read(images(tmp_path / "d", ["cat/1.png", "dog/1.png", "eel/1.png"]), classes=known)
    assert found == [1, 2, 0]
    assert len(labels.names) == 3


def test_a_name_of_two_classes_is_shown_and_stands_for_neither(tmp_path: Path) -> None:
    known = classes(tmp_path / "map.txt", "eel\ncrane\ncrane\n")
    assert known.shown() == ("eel", "crane (1)", "crane (2)")
    by_number = classes(tmp_path / "map.json", {"0": ["n0", "eel"], "1": ["n1", "crane"], "2": ["n2", "crane"]})
    found, labels = read(images(tmp_path / "d", ["n0/1.png", "n2/1.png"]), classes=by_number)
    assert (found, labels.names) == ([0, 2], ("eel", "crane (1)", "crane (2)"))
    with pytest.raises(DataError, match="class 'crane' is the name of several classes"):
        read(images(tmp_path / "e", ["crane/1.png", "eel/1.png"]), classes=known)


@given(st.lists(st.text("abc/", min_size=1, max_size=4), min_size=1, max_size=9, unique=True), st.randoms())
def test_a_map_gives_every_name_its_own_index_whatever_the_order(names: list[str], random: Any) -> None:
    order = list(names)
    random.shuffle(order)
    found = class_indices(order, None, len(names), "here")
    assert sorted(found.values()) == list(range(len(names)))
    assert sorted(found, key=found.__getitem__) == sorted(names)


def test_fewer_folders_than_classes_are_refused_unless_they_are_numbers(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"2 classes \(cat, dog\), but the network has 3") as caught:
        read(images(tmp_path / "a", ["cat/1.png", "dog/1.png"]))
    assert "--classes" in caught.value.remedy
    found, labels = read(images(tmp_path / "b", ["0/1.png", "2/1.png"]))
    assert found == [0, 2]
    assert labels.notes == ("1 of 3 classes have no samples: 1",)


def test_numbers_in_another_order_as_text_are_refused() -> None:
    names = [str(i) for i in range(11)]
    with pytest.raises(DataError, match="not their numeric order"):
        class_indices(names, None, 11, "val")
    assert class_indices([f"{i:02d}" for i in range(11)], None, 11, "val")["10"] == 10


def test_missing_classes_are_one_line(tmp_path: Path) -> None:
    known = classes(tmp_path / "map.txt", "\n".join("abcdef"))
    _, labels = read(images(tmp_path / "d", ["b/1.png", "e/1.png"]), count=6, classes=known)
    assert labels.notes == ("4 of 6 classes have no samples: a, c, d, …",)


def test_a_folder_that_is_no_class_is_named(tmp_path: Path) -> None:
    known = classes(tmp_path / "map.txt", "cat\ndog\n")
    with pytest.raises(DataError, match=r"class 'cow' is not in map\.txt"):
        read(images(tmp_path / "d", ["cat/1.png", "cow/1.png"]), count=2, classes=known)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("cat\n\ndog\n", "class 1 has no name"),
        ("", "holds no class names"),
    ],
)
def test_a_broken_class_map_is_refused(tmp_path: Path, content: str, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        classes(tmp_path / "map.txt", content)
    with pytest.raises(DataError, match="neither a list"):
        classes(tmp_path / "map.json", {"cat": "dog"})
    with pytest.raises(DataError, match="not JSON"):
        classes(tmp_path / "map.json", "{")
    with pytest.raises(DataError, match="No such file"):
        read_classes(tmp_path / "none.txt")


def test_more_class_names_than_classes_are_refused(tmp_path: Path) -> None:
    known = classes(tmp_path / "map.txt", "cat\ndog\neel\n")
    with pytest.raises(DataError, match="names 3 classes, but the network has 2"):
        read(images(tmp_path / "d", ["cat/1.png"]), count=2, classes=known)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("l.csv", "file,label\na.png,2\nb/c.png,0\n"),
        ("l.csv", "a.png,2\nb/c.png,0\n"),
        ("l.csv", "label,split,filename\n2,val,a.png\n0,val,./b/c.png\n"),
        ("l.csv", "id,label\na,2\nc,0\n"),
        ("l.tsv", "a.png\t2\nc.png\t0\n"),
        ("l.txt", "a.png 2\nb/c.png 0\n"),
    ],
)
def test_tables_of_labels(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    found, _ = read(images(tmp_path / "d", ["a.png", "b/c.png"]), path=tmp_path / name)
    assert found == [2, 0]


def test_tables_of_names_and_of_figures(tmp_path: Path) -> None:
    data = images(tmp_path / "d", ["a.png", "b.png"])
    (tmp_path / "l.csv").write_text("a.png,dog\nb.png,cat\n")
    known = classes(tmp_path / "map.txt", "dog\ncow\ncat\n")
    assert read(data, path=tmp_path / "l.csv", classes=known)[0] == [0, 2]
    (tmp_path / "l.csv").write_text("a.png,1.5\nb.png,-2\n")
    assert read(data, indices=False, path=tmp_path / "l.csv")[0] == [1.5, -2.0]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("a.png,0\n", r"has no label for 2 of 3 samples: b/c\.png, d/c\.png"),
        (
            "im/a.png,0\nim/c.png,1\n",
            r"it has labels for im/a\.png, im/c\.png\n.*in the data folder, for example a\.png",
        ),
        ("a.png,0\nc.png,1\n", r"'c\.png' could be b/c\.png or d/c\.png"),
        ("a.png,0\na.png,1\n", r"line 2: a\.png is labelled '0' and '1'"),
        ("a.png,0\nb/c.png,1\nd/c.png,3\n", r"the label of d/c\.png is 3, but the network has the classes 0 … 2"),
        ("a.png\n", "line 1: not file,label"),
        ("", "holds no labels"),
        (
            "a.png,cat\nb/c.png,dog\nd/c.png,eel\n",
            r"l\.csv: labels are names \(cat, dog, eel\), and no indices are given",
        ),
        ("a.png,0\nb/c.png,-1\nd/c.png,9.5\n", r"l\.csv: the label '-1' of b/c\.png is not a class index"),
        ("a.png,9.5\nb/c.png,cat\nd/c.png,0\n", r"the label '9\.5' of a\.png is not a class index"),
        ("d/c.png,2\nb/c.png,1\na.png,cat\n", r"the label 'cat' of a\.png is not a class index"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "l.csv").write_text(content)
    with pytest.raises(DataError, match=problem):
        read(images(tmp_path / "d", ["a.png", "b/c.png", "d/c.png"]), path=tmp_path / "l.csv")


@pytest.mark.parametrize("indices", [True, False])
def test_names_in_a_table_have_no_order_of_their_own(tmp_path: Path, indices: bool) -> None:
    """As many names as the network has classes are no reason to take them for sorted."""
    data = images(tmp_path / "d", ["a.png", "b.png"])
    (tmp_path / "l.csv").write_text("a.png,one\nb.png,zero\n")
    with pytest.raises(DataError, match="labels are names") as caught:
        read(data, count=2, indices=indices, path=tmp_path / "l.csv")
    assert "--classes FILE" in caught.value.remedy
    known = classes(tmp_path / "map.txt", "zero\none\n")
    assert read(data, count=2, indices=indices, path=tmp_path / "l.csv", classes=known)[0] == [1, 0]


def test_lines_of_other_samples_are_no_concern(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("a.png,2\nunlabelled.png,-1\n")
    assert read(images(tmp_path / "d", ["a.png"]), path=tmp_path / "l.csv")[0] == [2]


def arrays(path: Path, labels: Any, name: str = "labels") -> Path:
    np.savez(path, x=np.zeros((5, 1, 2, 2), np.float32), **{name: np.asarray(labels)})
    return path


@pytest.mark.parametrize("name", ["y", "label", "LABELS", "target"])
def test_labels_beside_the_rows_of_an_array(tmp_path: Path, name: str) -> None:
    found, labels = read(arrays(tmp_path / "d.npz", [0, 1, 2, 1, 0], name))
    assert found == [0, 1, 2, 1, 0]
    assert labels.source == f"array {name!r} of d.npz"


def test_labels_of_rows_in_a_file_of_their_own(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((5, 1, 2, 2), np.float32))
    np.save(tmp_path / "y.npy", np.array([[0], [1], [2], [1], [0]]))
    assert read(tmp_path / "d.npz", path=tmp_path / "y.npy")[0] == [0, 1, 2, 1, 0]
    np.save(tmp_path / "y.npy", np.arange(3))
    with pytest.raises(DataError, match="has 3 labels, the data at least 5 rows"):
        read(tmp_path / "d.npz", path=tmp_path / "y.npy")
    with pytest.raises(DataError, match="a label for each row of an array, but the data are images"):
        read(images(tmp_path / "i", ["a.png"]), path=tmp_path / "y.npy")


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        ([0, 1, 2, 3, 0], r"the label of d\.npz\[3\] is 3"),
        ([0, -1, 2, 1, 0], r"the label of d\.npz\[1\] is -1"),
        ([0, 0.5, 2, 1, 0], r"the label of d\.npz\[1\] is 0\.5"),
        (np.zeros((5, 2)), r"a label of d\.npz\[0\] has 2 values, not one class"),
        (["cat"] * 5, r"the label 'cat' of d\.npz\[0\] is a name, and no index is given"),
    ],
)
def test_labels_that_are_no_class_are_refused_by_their_sample(tmp_path: Path, labels: Any, problem: str) -> None:
    path = arrays(tmp_path / "d.npz", labels)
    with pytest.raises(DataError, match=problem):
        read(path)


def test_metrics_of_another_kind_get_labels_as_they_are(tmp_path: Path) -> None:
    labels = np.arange(10.0).reshape(5, 2)
    assert read(arrays(tmp_path / "d.npz", labels), indices=False)[0] == labels.tolist()


@pytest.mark.parametrize("form", ["pairs", "mappings", "mapping and labels"])
def test_labels_that_come_along_with_batches(form: str) -> None:
    x, y = np.zeros((2, 1, 2, 2), np.float32), np.array([1, 2])
    item: Any = {"pairs": (x, y), "mappings": {"x": x, "label": y}, "mapping and labels": ({"x": x}, y)}[form]
    assert read([item, item])[0] == [1, 2, 1, 2]


def test_batches_whose_labels_are_missing_or_too_few_are_named() -> None:
    x = np.zeros((2, 1, 2, 2), np.float32)
    with pytest.raises(DataError, match="batch 2 of the stream, sample 0 and 1 more of its batch have no labels"):
        read([(x, [0, 1]), x])
    with pytest.raises(DataError, match="have 3 labels"):
        read([(x, [0, 1, 1])])


def test_a_generator_may_write_every_batch_into_one_array() -> None:
    def batches() -> Iterator[Any]:
        x, y = np.zeros((2, 1, 2, 2), np.float32), np.zeros(2, np.int64)
        for number in range(3):
            x[:], y[:] = number, number
            yield x, y

    feed, _ = open_data(batches, [INPUT], PRESETS["raw"], DataOptions())
    portions = list(feed.portions())
    assert [p.batch[INPUT.name].max() for p in portions] == [0, 1, 2]
    assert [p.labels.tolist() for p in portions if p.labels is not None] == [[0, 0], [1, 1], [2, 2]]


def test_a_limit_cuts_labels_with_their_batch() -> None:
    x = np.zeros((4, 1, 2, 2), np.float32)
    feed, _ = open_data([(x, np.arange(4))], [INPUT], PRESETS["raw"], DataOptions(limit=3))
    (portion,) = feed.portions()
    assert portion.labels is not None
    assert portion.labels.tolist() == [0, 1, 2]
    assert portion.samples == 3


def test_an_evaluation_takes_all_samples_and_a_calibration_some(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((600, 1, 2, 2), np.float32))
    for whole, count in ((True, 600), (False, 512)):
        feed, _ = open_data(tmp_path / "d.npz", [INPUT], PRESETS["raw"], DataOptions(whole=whole))
        assert feed.samples == count
    stream = [np.zeros((300, 1, 2, 2), np.float32)] * 3
    feed, _ = open_data(stream, [INPUT], PRESETS["raw"], DataOptions(whole=True))
    assert sum(p.samples for p in feed.portions()) == 900
    assert feed.notes == ()
