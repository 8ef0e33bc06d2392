"""A second `quantize` of the same inputs reuses what is there, and one of other inputs says what is different."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import quantkit
from quantkit.errors import StaleError
from quantkit.quantization.reuse import RUN_KEY

DATA = Path(__file__).parents[2] / "calibration_data"
TARGET = "model.int8.onnx"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the bundled network, sixteen images, and statistics of them."""
    for name in ("model.onnx", "preprocess.toml"):
        shutil.copy(DATA / name, tmp_path)
    (tmp_path / "imgs").mkdir()
    for number, path in enumerate(sorted((DATA / "images").rglob("*.png"))[:16]):
        shutil.copy(path, tmp_path / "imgs" / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    quantkit.calibrate("model.onnx", "imgs", output="model.calib")
    return tmp_path


def quantize(**options: Any) -> Any:
    """Quantize the network, from its statistics unless other sources are named."""
    sources = {} if "table" in options or "data" in options else {"statistics": "model.stats.safetensors"}
    return quantkit.quantize("model.onnx", TARGET, **sources, **options)


@pytest.mark.parametrize(
    "source", [{}, {"table": "model.calib"}, {"data": "imgs"}, {"data": "imgs", "limit": 8}], ids=str
)
def test_the_same_again_is_reused_and_tells_the_same(source: dict[str, Any], place: Path) -> None:
    first = quantize(**source)
    content, stamp = Path(TARGET).read_bytes(), os.stat(TARGET)
    again = quantize(**source)
    assert (again.reused, first.reused) == (True, False)
    assert (Path(TARGET).read_bytes(), os.stat(TARGET).st_mtime_ns) == (content, stamp.st_mtime_ns)
    assert again.notes == (*first.notes, f"nothing changed: {TARGET} is reused")
    assert again.proto.SerializeToString(deterministic=True) == first.proto.SerializeToString(deterministic=True)
    left = {"proto": None, "notes": (), "reused": False, "trial": None}
    assert replace(again, **left) == replace(first, **left)
    assert first.trial is not None
    assert again.trial is not None
    assert str(asdict(again.trial)) == str(asdict(first.trial))


def test_data_beside_statistics_count(place: Path) -> None:
    both = {"statistics": "model.stats.safetensors", "data": "imgs", "repairs": ("bias",), "rule": "mse"}
    quantkit.quantize("model.onnx", TARGET, **both)
    assert quantkit.quantize("model.onnx", TARGET, **both).reused
    with pytest.raises(StaleError, match=r"something else: samples .*, data, order of the data, preprocessing"):
        quantize(repairs=("bias",), rule="mse")


def test_the_record_has_no_paths_and_no_dates(place: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    quantize(data="imgs", repairs=())
    there = Path(TARGET).read_bytes()
    other = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(place / "imgs", other / "imgs", copy_function=shutil.copyfile)
    for name in ("model.onnx", "preprocess.toml"):
        shutil.copyfile(place / name, other / name)
    quantkit.quantize(other / "model.onnx", other / TARGET, data=other / "imgs", repairs=())
    assert (other / TARGET).read_bytes() == there


def test_what_changed_is_named(place: Path) -> None:
    known: dict[str, Any] = {"data": "imgs", "repairs": ("bias",), "rule": "mse"}
    quantize(**known)
    for options, changed in [
        ({"rule": "entropy"}, r"rule \(was mse, now entropy\)"),
        ({"policy": "all"}, r"policy \(was tensorrt, now all\)"),
        ({"repairs": None}, r"repairs \(was bias, now default\)"),
        ({"weights": "float"}, r"weights \(was int8, now float\)"),
        ({"limit": 8}, r"samples \(was 16, now 8\), data, order of the data\n"),
        ({"exclude": ("Gemm", "Conv")}, r"excluded layers \(was none, now Conv, Gemm\)"),
        ({"fp16": True}, r"FP16 \(was no, now yes\)"),
    ]:
        with pytest.raises(StaleError, match=f"was made with something else: {changed}") as caught:
            quantize(**known | options)
        assert caught.value.remedy == "another --output keeps both; --force replaces it"
    with pytest.raises(
        StaleError, match=r"something else: statistics, samples .*, data, order of the data, preprocessing"
    ):
        quantize(repairs=("bias",), rule="mse")
    assert quantize(**known).reused
    assert not quantize(**known | {"rule": "entropy"}, force=True).reused
    assert quantize(**known | {"rule": "entropy"}).reused


def test_a_changed_image_is_other_data_and_a_touched_one_is_not(place: Path) -> None:
    quantize(data="imgs", repairs=("bias",))
    image = place / "imgs" / "3.png"
    os.utime(image, ns=(0, 0))
    assert quantize(data="imgs", repairs=("bias",)).reused
    image.write_bytes((place / "imgs" / "4.png").read_bytes())
    with pytest.raises(StaleError, match="something else: data, order of the data"):
        quantize(data="imgs", repairs=("bias",))


def test_what_was_edited_or_is_of_others_is_refused(place: Path) -> None:
    quantize()
    model = onnx.load(TARGET)
    del model.graph.node[0].input[1:]
    onnx.save(model, TARGET)
    with pytest.raises(StaleError):
        quantize()
    quantize(force=True)
    model = onnx.load(TARGET)
    weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weight.raw_data = bytes(len(weight.raw_data))
    onnx.save(model, TARGET)
    with pytest.raises(StaleError, match="was changed after quantkit wrote it"):
        quantize()
    for other in (b"not a model", (place / "model.onnx").read_bytes()):
        Path(TARGET).write_bytes(other)
        with pytest.raises(StaleError, match="already exists"):
            quantize()
        assert Path(TARGET).read_bytes() == other


def test_a_damaged_record_is_no_record(place: Path) -> None:
    quantize()
    model = onnx.load(TARGET)
    next(entry for entry in model.metadata_props if entry.key == RUN_KEY).value = '{"inputs": 5}'
    onnx.save(model, TARGET)
    with pytest.raises(StaleError, match="already exists"):
        quantize()


def test_data_without_files_are_never_taken_for_the_same(place: Path) -> None:
    def batches() -> Any:
        return ({"image": np.ones((4, 1, 16, 16), np.float32)} for _ in range(2))

    name = onnx.load("model.onnx").graph.input[0].name
    data = [{name: batch["image"]} for batch in batches()]
    quantkit.quantize("model.onnx", TARGET, data=data, repairs=())
    with pytest.raises(StaleError, match="already exists"):
        quantkit.quantize("model.onnx", TARGET, data=data, repairs=())
