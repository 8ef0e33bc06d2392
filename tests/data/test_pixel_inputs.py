"""The default preprocessing follows from what the network does with its input first."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from quantkit.data.pixel_inputs import default_preset
from quantkit.data.pixels import decode
from quantkit.data.preprocess_choice import choose_spec
from quantkit.errors import UnreadableError
from quantkit.graph import load_model
from quantkit.preprocess import Preprocess

MEAN, SPREAD = [[[123.7]], [[116.3]], [[103.5]]], [[[58.4]], [[57.1]], [[57.4]]]
BEGINNINGS: dict[str, tuple[list[tuple[str, list[Any]]], str]] = {
    "div": ([("Div", ["", 255.0])], "Div by 255"),
    "mul": ([("Mul", ["", 1 / 127.5]), ("Sub", ["", 1.0])], "Mul by 0.00784314"),
    "mul from the left": ([("Mul", [1 / 255, ""])], "Mul by 0.00392157"),
    "centred": ([("Sub", ["", MEAN]), ("Div", ["", SPREAD])], "Sub by 123.7"),
    "behind moves": ([("Identity", [""]), ("Cast", [""]), ("Div", ["", 255.0])], "Div by 255"),
    "normalised for fractions": ([("Sub", ["", 0.485]), ("Div", ["", 0.229])], ""),
    "one minus": ([("Sub", [255.0, ""])], ""),
    "doubled": ([("Mul", ["", 2.0])], ""),
    "itself": ([("Mul", ["", ""])], ""),
    "relu": ([("Relu", [""]), ("Div", ["", 255.0])], ""),
}


def network(folder: Path, beginning: list[tuple[str, list[Any]]]) -> Path:
    weights, nodes, now = [], [], "x"
    for i, (operator, inputs) in enumerate(beginning):
        names = []
        for k, value in enumerate(inputs):
            if value != "":
                weights.append(numpy_helper.from_array(np.array(value, np.float32), f"w{i}{k}"))
            names.append(now if value == "" else f"w{i}{k}")
        extra = {"to": TensorProto.FLOAT} if operator == "Cast" else {}
        now = f"t{i}"
        nodes.append(helper.make_node(operator, names, [now], **extra))
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])
    made = helper.make_tensor_value_info(now, TensorProto.FLOAT, ["N", 3, 8, 8])
    graph = helper.make_graph(nodes, "g", [value], [made], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "m.onnx")
    return folder / "m.onnx"


@pytest.mark.parametrize("kind", BEGINNINGS)
def test_a_network_that_normalises_pixels_itself_gets_them(kind: str, tmp_path: Path) -> None:
    beginning, reason = BEGINNINGS[kind]
    model = load_model(network(tmp_path, beginning))
    name, why = default_preset(model, model.inputs)
    assert name == ("raw" if reason else "unit")
    assert reason in why
    (tmp_path / "images").mkdir()
    assert why in str(choose_spec(None, model, tmp_path / "images").warning), "it remains a guess"


def test_sixteen_bits_stay_sixteen_or_are_refused() -> None:
    levels = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1040 + 15
    content = io.BytesIO()
    Image.fromarray(levels).save(content, "PNG")
    spec = Preprocess(size=(8, 8), channels="grey", layout="nhwc", dtype="uint16")
    with pytest.raises(UnreadableError, match="scale = 257"):
        decode(content.getvalue(), spec)
    assert np.array_equal(decode(content.getvalue(), spec.model_copy(update={"scale": 257.0}))[..., 0], levels)
    rounded = decode(content.getvalue(), spec.model_copy(update={"dtype": "uint8"}))
    assert np.array_equal(rounded[..., 0], np.rint(levels / 257))
