"""Weights in temporary files: what is computed stays the same, files last as long as networks, folders as the block."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantkit.backends.session import open_session
from quantkit.errors import OutputError
from quantkit.graph import Model, load_model, write_model
from quantkit.graph.identity import external_files, model_identity
from quantkit.graph.save import SMALL, weight_bytes
from quantkit.graph.weight_store import WeightStore, take_stored_weights
from quantkit.repairs.editing import WeightEditor

X = np.random.default_rng(0).standard_normal((2, 32)).astype(np.float32)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """A product with a large weight and a small bias, stored raw, and one with a weight in `float_data`."""
    rng = np.random.default_rng(1)
    values = rng.standard_normal((32, 32)).astype(np.float32)
    weights = [
        numpy_helper.from_array(values, "w"),
        numpy_helper.from_array(values[0], "b"),
        helper.make_tensor("v", TensorProto.FLOAT, values.shape, rng.standard_normal(values.size)),
    ]
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], "first"),
        helper.make_node("MatMul", ["h", "v"], ["y"], "second"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 32]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    return load_model(tmp_path / "m.onnx")


def outputs(model: Model) -> np.ndarray:
    """Return what a network computes."""
    return open_session(model, model.outputs).runner()({"x": X})["y"].copy()


def test_large_weights_lie_in_a_file_and_nothing_else_changes(model: Model) -> None:
    with WeightStore() as store:
        stored = store.put(model)
        assert [bool(external_files(m.proto)) for m in (model, stored)] == [False, True]
        assert stored.proto.ByteSize() < SMALL + weight_bytes(stored.proto) / 4
        assert weight_bytes(stored.proto) == weight_bytes(model.proto)
        assert model_identity(stored.proto, stored.folder, "m") == model.sha256
        np.testing.assert_array_equal(outputs(stored), outputs(model))
        assert store.put(stored).proto is stored.proto
        proto = onnx.ModelProto()
        proto.CopyFrom(stored.proto)
        take_stored_weights(proto, stored)
    assert not external_files(proto)
    assert model_identity(proto, Path("nowhere"), "m") == model.sha256
    assert not store.folder.exists()


def test_a_weight_keeps_its_remarks(model: Model) -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    proto.graph.initializer[0].doc_string = "of the first layer"
    with WeightStore() as store:
        stored = store.put(replace(model, proto=proto))
        made = onnx.ModelProto()
        made.CopyFrom(stored.proto)
        take_stored_weights(made, stored)
    raw, back = ({w.name: w.SerializeToString(deterministic=True) for w in p.graph.initializer} for p in (proto, made))
    assert back["w"] == raw["w"]
    assert back["b"] == raw["b"]


def test_a_network_that_was_edited_stores_what_changed(model: Model) -> None:
    with WeightStore() as store:
        stored = store.put(model)
        editor = WeightEditor(stored)
        editor.replace(editor.proto.graph.node[0], 1, 2 * editor.values("w"))
        changed = replace(stored, proto=editor.finished()).with_weights_stored()
        assert len(external_files(changed.proto)) == 2
        assert len(list(store.folder.iterdir())) == 2
        plain = WeightEditor(model)
        plain.replace(plain.proto.graph.node[0], 1, 2 * plain.values("w"))
        np.testing.assert_array_equal(outputs(changed), outputs(replace(model, proto=plain.finished())))


def test_a_link_that_leads_nowhere_takes_no_name(model: Model, tmp_path: Path) -> None:
    with WeightStore() as store:
        (store.folder / "weights-0.data").symlink_to(tmp_path / "gone")
        stored = store.put(model)
        assert external_files(stored.proto) == ("weights-1.data",)
        np.testing.assert_array_equal(outputs(stored), outputs(model))


def test_a_file_goes_with_the_last_network_that_reads_it(model: Model) -> None:
    with WeightStore() as store:
        stored = store.put(model)
        editor = WeightEditor(stored)
        for number, name in enumerate("wv"):
            editor.replace(editor.proto.graph.node[number], 1, 2 * editor.values(name))
        changed = replace(stored, proto=editor.finished()).with_weights_stored()
        del stored, editor
        gc.collect()
        assert [path.name for path in store.folder.iterdir()] == list(external_files(changed.proto))
        outputs(changed)
        del changed
        gc.collect()
        assert not list(store.folder.iterdir())


def test_weights_that_lie_in_files_stay_there(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "large").mkdir()
    monkeypatch.setattr("quantkit.graph.save.ONE_FILE", 6000)
    path = tmp_path / "large" / "m.onnx"
    write_model(model.proto, model.folder, path)
    large = load_model(path)
    with WeightStore() as store:
        stored = store.put(large)
        assert external_files(stored.proto) == ("m.onnx.data", "weights-0.data")  # the second: of `float_data`
        np.testing.assert_array_equal(outputs(stored), outputs(large))
        proto = onnx.ModelProto()
        proto.CopyFrom(stored.proto)
        take_stored_weights(proto, stored)
        assert external_files(proto) == external_files(large.proto)
    assert external_files(large.proto) == ("m.onnx.data",)
    assert sorted(found.name for found in path.parent.iterdir()) == ["m.onnx", "m.onnx.data"]


def test_without_a_place_for_files_it_says_so(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(OutputError, match="temporary file") as raised:
        WeightStore()
    assert "TMPDIR" in raised.value.remedy
    monkeypatch.setattr("tempfile.tempdir", None)
    with WeightStore() as store:
        store.folder.rmdir()
        with pytest.raises(OutputError, match="temporary file"):
            store.put(model)
