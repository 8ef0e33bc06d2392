"""What a model tells a server: shapes of outputs that the file does not declare, and whether batches are possible."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper, parser

from quantkit.errors import ModelError
from quantkit.graph import load_model
from quantkit.graph.interface import Interface, read_interface

HEAD = '<ir_version: 8, opset_import: ["": 17]> net '


def interface(folder: Path, text: str, *, bare: bool = False) -> Interface:
    """The interface of a model; bare: its outputs declare no shapes."""
    proto = parser.parse_model(HEAD + text)
    if bare:
        for value in proto.graph.output:
            value.type.tensor_type.ClearField("shape")
    onnx.save(proto, folder / "net.onnx")
    return read_interface(load_model(folder / "net.onnx"))


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize(
    ("text", "shape", "unbatched"),
    [
        ("(float[N, 3, 4, 4] x) => (float[N, 3, 1, 1] y) { y = GlobalAveragePool(x) }", (None, 3, 1, 1), ""),
        ("(float[N, 6] x) => (float[6, N] y) { y = Transpose(x) }", (6, None), "the first dimension of output 'y'"),
        ("(float[2, 6] x) => (float[6, 2] y) { y = Transpose(x) }", (6, 2), "the batch of input x float32 [2,6] is"),
        # as many rows as two samples and three have, but not one of each
        ("(float[N, 6] x) => (float[M, 6] y) { y = Concat<axis=0>(x, x) }", (None, 6), "the first dimension of output"),
        ("(float[N, 6] x) => (float[6] y) { y = ReduceMean<axes=[0], keepdims=0>(x) }", (6,), "the first dimension of"),
        ("(float[N, 6] x) => (float y) { y = ReduceMean<keepdims=0>(x) }", (), "the first dimension of output 'y'"),
    ],
)
def test_outputs_follow_the_batch_or_not(
    tmp_path: Path, text: str, shape: tuple[int | None, ...], unbatched: str, bare: bool
) -> None:
    found = interface(tmp_path, text, bare=bare)
    (output,) = found.outputs
    assert tuple(s if isinstance(s, int) else None for s in output.shape) == shape
    assert found.unbatched.startswith(unbatched)
    assert bool(found.unbatched) == bool(unbatched)


def test_inputs_of_differently_called_batches_are_not_one_batch(tmp_path: Path) -> None:
    found = interface(tmp_path, "(float[N, 6] x, float[M, 6] z) => (float[N, 6] y) { y = Identity(x) e = Abs(z) }")
    assert found.unbatched.startswith("the first dimensions of the inputs have different names")


def test_symbols_decide_where_other_dimensions_are_dynamic(tmp_path: Path) -> None:
    same = interface(tmp_path, "(float[N, 3, H, W] x) => (float[N, 3, H, W] y) { y = Relu(x) }")
    assert (same.unbatched, same.outputs[0].shape) == ("", ("N", 3, "H", "W"))
    other = interface(tmp_path, "(float[N, 3, H, W] x) => (float[boxes, 6] y) { y = Boxes(x) }")
    assert other.unbatched == "the first dimension of output 'y' is not known to be the batch"


@pytest.mark.parametrize(("shaped", "what"), [("input", "output 'y'"), ("output", "input 'x'")])
def test_what_nothing_tells_is_refused(tmp_path: Path, shaped: str, what: str) -> None:
    sides = {
        side: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3] if side == shaped else None)
        for side, name in (("input", "x"), ("output", "y"))
    }
    node = helper.make_node("Unknown", ["x"], ["y"], domain="own")
    graph = helper.make_graph([node], "g", [sides["input"]], [sides["output"]])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets), tmp_path / "net.onnx")
    with pytest.raises(ModelError, match=f"the shape of {what} .*is unknown"):
        read_interface(load_model(tmp_path / "net.onnx"))
