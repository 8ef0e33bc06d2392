"""A second run reuses what fits, refuses what does not, and says what changed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

import quantkit
from quantkit import CalibrateOptions, DataOptions, HistogramMode
from quantkit.data.pictures import store
from quantkit.errors import DataError, StaleError, StatisticsError, TableError, UsageError

MODEL, DATA, OUTPUT = "net/model.onnx", "imgs", "x.calib"


def calibrate(**changes: Any) -> quantkit.Calibration:
    """The call that the tests repeat with one thing changed."""
    arguments: dict[str, Any] = {"model": MODEL, "data": DATA, "output": OUTPUT, **changes}
    return quantkit.calibrate(arguments.pop("model"), arguments.pop("data"), **arguments)


@pytest.fixture
def first(place: Path) -> Path:
    """A calibration is there."""
    assert not calibrate().reused
    return place


def test_a_second_run_reuses(first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {p.name: p.read_bytes() for p in first.iterdir() if p.is_file()}
    monkeypatch.setattr(store, "decoded", None)
    again = calibrate()
    assert again.reused
    assert again.samples == 60
    assert again.statistics is not None
    assert {p.name: p.read_bytes() for p in first.iterdir() if p.is_file()} == before


def test_another_tensorrt_version_converts_the_table(first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the header and the record of it change, without a look at the data, and a note says so."""
    before, statistics = quantkit.read_table(OUTPUT), (first / "x.stats.safetensors").read_bytes()
    monkeypatch.setattr(store, "decoded", None)
    options = CalibrateOptions(tensorrt_version="8.6.1")
    made = calibrate(options=options)
    assert not made.reused
    assert made.notes == ("x.calib was for TensorRT 10.3.0 and is now for 8.6.1: its header changed, and no scale",)
    after = quantkit.read_table(OUTPUT)
    assert after.header.text == "TRT-8601-EntropyCalibration2"
    assert after.scales == before.scales == made.table.scales
    assert (first / "x.stats.safetensors").read_bytes() == statistics
    assert json.loads((first / "x.calib.json").read_text())["table"]["header"] == after.header.text
    assert calibrate(options=options).reused
    (first / OUTPUT).write_text((first / OUTPUT).read_text() + "extra: 3f800000\n")
    with pytest.raises(StaleError, match="was changed after quantkit wrote it"):
        calibrate()


def test_touched_files_are_compared_by_content(first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for image in first.glob("imgs/*/*.png"):
        image.touch()
    monkeypatch.setattr(store, "decoded", None)
    assert calibrate().reused


def test_a_copy_of_the_model_is_the_same_model(first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = onnx.load(MODEL)
    model.doc_string, model.producer_name = "saved again", "somebody"
    onnx.save(model, "net/other.onnx")
    monkeypatch.setattr(store, "decoded", None)
    assert calibrate(model="net/other.onnx").reused


CHANGES: dict[str, dict[str, Any]] = {
    "preprocessing": {"preprocess": "unit"},
    "samples": {"options": CalibrateOptions(data=DataOptions(limit=50))},
    "order of the data": {"options": CalibrateOptions(data=DataOptions(shuffle=True))},
    "batch size": {"options": CalibrateOptions(data=DataOptions(batch_size=8))},
    "rule": {"rules": "entropy"},
    "header": {"options": CalibrateOptions(algorithm=quantkit.Algorithm("MinMaxCalibration"))},
    "histogram": {"options": CalibrateOptions(histogram=HistogramMode.INVARIANT)},
    "max memory": {"options": CalibrateOptions(max_memory=1 << 26)},
    "excluded layers": {"options": CalibrateOptions(exclude=("*",))},
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_changed_is_refused_and_named(what: str, first: Path) -> None:
    before = (first / OUTPUT).read_bytes()
    with pytest.raises(StaleError, match=what) as refusal:
        calibrate(**CHANGES[what])
    assert "--force" in refusal.value.remedy
    assert (first / OUTPUT).read_bytes() == before


def test_changed_data_is_refused(first: Path) -> None:
    image = sorted(first.glob("imgs/3/*.png"))[0]
    shutil.copy(sorted(first.glob("imgs/4/*.png"))[0], image)
    with pytest.raises(StaleError, match="data"):
        calibrate()


def test_images_that_were_replaced_with_their_size_and_time_are_other_data(place: Path) -> None:
    for image in list_bitmaps(place, 100):
        os.utime(image, (10**9, 10**9))
    calibrate(data="bitmaps")
    for image in list_bitmaps(place, 256):
        os.utime(image, (10**9, 10**9))
    with pytest.raises(StaleError, match="something else: data"):
        calibrate(data="bitmaps")


def list_bitmaps(place: Path, highest: int) -> list[Path]:
    """Images, all of the same size on disk."""
    (place / "bitmaps").mkdir(exist_ok=True)
    paths = [place / f"bitmaps/{i}.bmp" for i in range(8)]
    for i, path in enumerate(paths):
        Image.fromarray(np.random.default_rng(i + highest).integers(0, highest, (16, 16), np.uint8)).save(path)
    return paths


@pytest.mark.parametrize("remembered", [3, 5])
def test_a_copy_of_the_data_is_compared_by_content(
    remembered: int, first: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another machine inodes and times of change differ; records of version 0.1 do not have them."""
    record = first / "x.calib.json"
    document = json.loads(record.read_text())
    document["data"]["files"] = [file[:remembered] for file in document["data"]["files"]]
    del document["digest"]
    record.write_text(json.dumps(document))
    shutil.copytree(first / DATA, first / "copy")
    monkeypatch.setattr(store, "decoded", None)
    assert calibrate(data="copy").reused
    assert calibrate().reused


class Changing:
    """Progress that replaces an image as soon as a batch was counted."""

    def __init__(self, image: Path) -> None:
        self.image = image

    def start(self, samples: int | None, passes: int, done: int) -> None:
        """Nothing."""

    def advance(self, samples: int) -> None:
        """Replace the image."""
        del samples
        Image.fromarray(np.full((16, 16), 255, np.uint8)).save(self.image)

    def stopped(self) -> bool:
        """Go on."""
        return False

    def close(self) -> None:
        """Nothing."""


def test_an_image_that_changes_after_it_was_counted_makes_the_table_stale(place: Path) -> None:
    calibrate(progress=Changing(sorted(place.glob("imgs/0/*.png"))[0]))
    with pytest.raises(StaleError, match="something else: data"):
        calibrate()


def test_an_image_that_changes_between_two_passes_is_an_error(place: Path) -> None:
    image = sorted(place.glob("imgs/0/*.png"))[0]
    with pytest.raises(DataError, match=f"{image.name} changed during the run"):
        calibrate(options=CalibrateOptions(max_memory=1 << 16), progress=Changing(image))
    assert not (place / OUTPUT).exists()


def test_a_changed_weight_is_another_model(first: Path) -> None:
    model = onnx.load(MODEL)
    weight = next(w for w in model.graph.initializer if len(w.dims) == 4)
    values = onnx.numpy_helper.to_array(weight).copy()
    values[0] *= 1.5
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, MODEL)
    with pytest.raises(StaleError, match="model"):
        calibrate()


def test_force_replaces(first: Path) -> None:
    made = calibrate(rules="minmax", options=CalibrateOptions(force=True))
    assert not made.reused
    assert json.loads((first / "x.calib.json").read_text())["rule"] == "minmax"


def test_a_new_rule_comes_from_the_statistics(first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "decoded", None)
    made = calibrate(rules="wmse,minmax,percentile:99.9")
    assert not made.reused
    assert {p.name for p in made.files} == {
        "x.minmax.calib", "x.minmax.calib.json", "x.percentile-99.9.calib", "x.percentile-99.9.calib.json",
    }  # fmt: skip
    assert calibrate(rules="wmse,minmax,percentile:99.9").reused


def test_a_table_without_provenance_is_refused(first: Path) -> None:
    (first / "x.calib.json").unlink()
    with pytest.raises(StaleError, match="no provenance record") as refusal:
        calibrate()
    assert "adopt" in refusal.value.remedy


def test_an_edited_table_is_refused(first: Path) -> None:
    table = first / OUTPUT
    table.write_bytes(table.read_bytes().replace(b": 3", b": 2", 1))
    with pytest.raises(StaleError, match="changed after"):
        calibrate()


def test_damaged_provenance_is_an_error(first: Path) -> None:
    (first / "x.calib.json").write_text("{")
    with pytest.raises(TableError, match=r"x\.calib\.json"):
        calibrate()


def test_a_flipped_bit_in_a_record_is_damage(first: Path) -> None:
    record = first / "x.calib.json"
    text = record.read_text()
    changed = text.replace('"batches": 2', '"batches": 3')
    assert changed != text
    record.write_text(changed)
    with pytest.raises(TableError, match=r"x\.calib\.json is damaged"):
        calibrate()


def test_tables_are_reused_without_their_statistics(first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (first / "x.stats.safetensors").unlink()
    monkeypatch.setattr(store, "decoded", None)
    again = calibrate()
    assert again.reused
    assert again.statistics is None


def test_damaged_statistics_are_an_error(first: Path) -> None:
    (first / "x.stats.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(StatisticsError, match=r"x\.stats\.safetensors"):
        calibrate()


def test_an_adopted_table_is_not_taken_for_ours(first: Path) -> None:
    (first / "x.calib.json").unlink()
    quantkit.adopt(first / OUTPUT, first / MODEL)
    with pytest.raises(StaleError, match="adopted"):
        calibrate()


def test_a_stream_is_compared_by_content(place: Path) -> None:
    def batches(seed: int) -> list[dict[str, Any]]:
        values = np.random.default_rng(seed).normal(size=(3, 4, 1, 16, 16)).astype(np.float32)
        return [{"image": batch} for batch in values]

    assert not calibrate(data=batches(1)).reused
    assert calibrate(data=lambda: iter(batches(1))).reused
    with pytest.raises(StaleError, match="data"):
        calibrate(data=batches(2))


def test_in_invariant_mode_order_and_batches_do_not_matter(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def options(**data: Any) -> CalibrateOptions:
        return CalibrateOptions(histogram=HistogramMode.INVARIANT, data=DataOptions(**data))

    calibrate(options=options())
    monkeypatch.setattr(store, "decoded", None)
    assert calibrate(options=options(shuffle=True)).reused
    assert calibrate(options=options(batch_size=7)).reused


@pytest.mark.parametrize("change", [{"limit": 50}, {"limit": 40, "shuffle": True, "seed": 5}])
def test_other_rows_of_the_same_file_are_other_data(change: dict[str, Any], place: Path) -> None:
    np.save("x.npy", np.random.default_rng(0).normal(size=(64, 1, 16, 16)).astype(np.float32))
    calibrate(data="x.npy", options=CalibrateOptions(data=DataOptions(limit=40)))
    with pytest.raises(StaleError, match="data"):
        calibrate(data="x.npy", options=CalibrateOptions(data=DataOptions(**change)))


def test_a_table_made_from_the_statistics_is_reused(first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quantkit.tables_from(str(first / "x.stats.safetensors"), "entropy", output=first / "x.entropy.calib")
    monkeypatch.setattr(store, "decoded", None)
    assert calibrate(rules="wmse,entropy").reused


def test_statistics_of_another_run_are_not_overwritten(first: Path) -> None:
    (first / "x.calib").unlink()
    with pytest.raises(StaleError, match=r"x\.stats\.safetensors"):
        calibrate(preprocess="unit")


def test_what_was_left_out_is_not_forgotten(place: Path) -> None:
    (place / "imgs/0/bad.png").write_bytes(b"nothing")
    calibrate(options=CalibrateOptions(data=DataOptions(skip_corrupt=True)))
    assert calibrate(options=CalibrateOptions(data=DataOptions(skip_corrupt=True))).reused
    with pytest.raises(StaleError, match="could not be read"):
        calibrate()


def test_no_file_that_is_read_is_replaced_even_with_force(place: Path) -> None:
    """The model, the spec beside it, a sample, and names of tables that lead to one of them."""
    (place / "net/preprocess.toml").write_text('resize = "exact"\nscale = 0.5\n')
    sample = next(place.glob("imgs/*/*.png"))
    (place / "link.calib").symlink_to(sample)
    os.link(place / MODEL, place / "hard.calib")
    for output in ("net/preprocess.toml", MODEL, sample, "link.calib", "hard.calib", "net/../net/model.onnx"):
        before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
        for force in (False, True):
            with pytest.raises(UsageError, match=r"would replace (its own source|a sample of the data)"):
                calibrate(output=output, options=CalibrateOptions(force=force))
        assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before
