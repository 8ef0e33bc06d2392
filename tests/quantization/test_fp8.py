"""`quantize --type fp8`: what it writes, reuses and refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto

import quantkit
from quantkit.errors import StaleError, UsageError
from quantkit.graph import load_model
from quantkit.qdq.removal import remove_qdq
from quantkit.quantization.options import QuantizeOptions
from quantkit.quantization.record import METADATA_KEY

DATA = Path(__file__).parents[2] / "calibration_data"
STATISTICS = "model.stats.safetensors"


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundled network, sixteen images, and statistics of them."""
    folder = tmp_path_factory.mktemp("fp8")
    for name in ("model.onnx", "preprocess.toml"):
        shutil.copy(DATA / name, folder)
    (folder / "imgs").mkdir()
    for number, path in enumerate(sorted((DATA / "images").rglob("*.png"))[:16]):
        shutil.copy(path, folder / "imgs" / f"{number}.png")
    quantkit.calibrate(folder / "model.onnx", folder / "imgs", output=folder / "model.calib")
    return folder


@pytest.fixture
def place(calibrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, as the working folder."""
    shutil.copytree(calibrated, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def quantized(output: str | None = "model.fp8.onnx", **options: Any) -> Any:
    return quantkit.quantize("model.onnx", output, statistics=STATISTICS, **{"type": "fp8"} | options)


def test_the_type_is_recorded_and_counts_for_reuse(place: Path) -> None:
    made = quantized()
    assert (made.type.value, made.form.value, made.opset) == ("fp8", "fp8", 19)
    assert made.int8_layers[0] == 0
    assert 0 < made.fp8_layers <= made.int8_layers[1]
    assert len(made.left) == made.int8_layers[1] - made.fp8_layers
    record = json.loads(load_model("model.fp8.onnx").metadata[METADATA_KEY])
    assert (record["type"], record["weights"], record["repairs"]) == ("fp8", "fp8", ["bias"])
    assert quantized().reused
    with pytest.raises(StaleError, match=r"made with something else: type \(was fp8, now int8\)"):
        quantized(type="int8")


def test_scales_are_those_of_the_range_over_448(place: Path) -> None:
    made = quantized(None, rule="minmax")
    int8 = quantized(None, rule="minmax", type="int8")
    for name in made.pairs.keys() & int8.pairs.keys():
        assert made.pairs[name] * 448 == pytest.approx(int8.pairs[name] * 127)


def test_evaluate_counts_and_labels_it(place: Path) -> None:
    quantized()
    made = quantkit.evaluate(["model.onnx", "model.fp8.onnx"], "imgs")
    assert made.models[1].fp8_layers > 0
    assert "FP8 is simulated (Q and DQ are computed in float): model.fp8.onnx" in made.notes
    assert not any(note.startswith("INT8 is simulated") for note in made.notes)
    assert made.models[1].outputs[0].sqnr_db > 15


def test_layers_ranks_it(place: Path) -> None:
    made = quantkit.layers("model.onnx", statistics=STATISTICS, data="imgs", limit=4, type="fp8")
    activations = [error for error in made.tensors if not error.weight]
    assert activations
    assert all(20 < error.sqnr_db <= error.best_db + 1e-9 for error in activations)


def test_float_weights_give_the_same_numbers_and_come_off_again(place: Path) -> None:
    stored, plain = quantized(None), quantized("float.onnx", weights="float")
    assert (stored.form.value, plain.form.value) == ("fp8", "float")
    assert remove_qdq(load_model("float.onnx")).left == {}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"tensorrt_version": "8.6.1"}, "TensorRT 8 has no FP8: its NvInfer.h says that kFP8 is not supported yet"),
        ({"weights": "int8"}, "weights are stored as int8, but the type is fp8"),
        ({"rule": "entropy"}, "the rule entropy counts the levels of INT8"),
        ({"repairs": ("round",)}, "the repair 'round' is for INT8: it moves weights along the equal steps of INT8"),
        ({"gpu_profile": "gpu.json"}, "a GPU profile has times of INT8 and float, none of FP8"),
        ({"type": "fp4"}, "unknown quantized type 'fp4'"),
    ],
)
def test_what_fp8_is_not(place: Path, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError) as error:
        quantized("new.onnx", **options)
    assert expected in str(error.value)
    assert not Path("new.onnx").exists()


def test_a_table_has_no_scales_for_it(place: Path) -> None:
    with pytest.raises(UsageError, match="a calibration table holds scales of INT8"):
        quantkit.quantize("model.onnx", table="model.calib", options=QuantizeOptions(type="fp8"))
    quantized()
    made = quantkit.from_qdq("model.fp8.onnx", "back.calib")
    assert (dict(made.scales.scales), made.table, made.model.exists()) == ({}, None, True)
    assert set(made.unscaled.values()) == {"it is quantized to FP8, and a table holds scales of INT8"}
    assert not Path("back.calib").exists()


def test_the_rest_becomes_float16(place: Path) -> None:
    """Pairs convert as those of INT8 do: none stays float32, which left casts around every one."""
    made = quantized(fp16=True)
    assert not [note for note in made.notes if "stays float32" in note]
    graph = load_model("model.fp8.onnx").proto.graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    quantizers = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert {types[node.input[1]] for node in quantizers} == {TensorProto.FLOAT16}
