"""Scales that come from images prepared in another way than those of the evaluation put its figures in doubt."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

import quantkit
from quantkit.errors import ModelError
from quantkit.quantization.quantize import METADATA_KEY

MODEL = "net/model.onnx"


@pytest.mark.parametrize("source", ["statistics", "table"])
def test_a_qdq_model_of_images_prepared_otherwise_is_doubtful(source: str, place: Path) -> None:
    made = quantkit.calibrate(MODEL, "imgs", preprocess="unit", output="x.calib")
    scales = made.statistics if source == "statistics" else place / "x.calib"
    quantkit.quantize(MODEL, "x.int8.onnx", **{source: scales})
    own = quantkit.evaluate([MODEL, "x.int8.onnx"], "imgs", preprocess="unit")
    other = quantkit.evaluate([MODEL, "x.int8.onnx"], "imgs")
    assert not [text for text in own.doubts if "prepared by" in text]
    assert [text for text in other.doubts if text.startswith("x.int8.onnx was made from images prepared by")]


def test_a_flipped_bit_in_the_record_of_a_model_is_damage(place: Path) -> None:
    quantkit.quantize(MODEL, "x.int8.onnx", data="imgs")
    content = Path("x.int8.onnx").read_bytes()
    Path("x.int8.onnx").write_bytes(content.replace(b'"samples":60', b'"samples":61'))
    assert Path("x.int8.onnx").read_bytes() != content
    with pytest.raises(ModelError, match="is damaged: its content"):
        quantkit.evaluate([MODEL, "x.int8.onnx"], "imgs")


def test_a_damaged_record_in_a_model_is_an_error(place: Path) -> None:
    model = onnx.load(MODEL)
    model.metadata_props.add(key=METADATA_KEY, value='{"scales": 5}')
    onnx.save(model, "damaged.onnx")
    with pytest.raises(ModelError, match=r"'quantkit.quantize' of damaged\.onnx is not a record"):
        quantkit.evaluate([MODEL, "damaged.onnx"], "imgs")
