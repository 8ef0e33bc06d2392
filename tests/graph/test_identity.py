"""The identity of a model covers every field of ONNX's messages, and nothing of how they are stored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from onnx import TensorProto, helper, numpy_helper

from quantkit.graph.identity import IGNORED, REMARKS, STORAGE, external_files, model_identity
from quantkit.graph.messages import all_tensors
from quantkit.graph.subgraphs import all_nodes

WORDS = {"data_location": TensorProto.EXTERNAL, "data_type": TensorProto.INT64, "elem_type": TensorProto.INT64}
PLACES: dict[str, Callable[[onnx.ModelProto], Any]] = {
    "ModelProto": lambda m: m,
    "GraphProto": lambda m: m.graph,
    "NodeProto": lambda m: m.graph.node[0],
    "AttributeProto": lambda m: m.graph.node[0].attribute[0],
    "ValueInfoProto": lambda m: m.graph.input[0],
    "TensorProto": lambda m: m.graph.initializer[0],
    "SparseTensorProto": lambda m: m.graph.sparse_initializer.add(
        values=numpy_helper.from_array(np.ones(1, np.float32), "s"),
        indices=numpy_helper.from_array(np.zeros(1, np.int64)),
        dims=[4],
    ),
    "FunctionProto": lambda m: m.functions[0],
    "OperatorSetIdProto": lambda m: m.opset_import[0],
    "TypeProto": lambda m: m.graph.input[0].type,
    "TensorShapeProto": lambda m: m.graph.input[0].type.tensor_type.shape,
    "DeviceConfigurationProto": lambda m: m.configuration.add(name="two", num_devices=2),
    "NodeDeviceConfigurationProto": lambda m: m.graph.node[0].device_configurations.add(configuration_id="two"),
    "TensorAnnotation": lambda m: m.graph.quantization_annotation.add(tensor_name="x"),
}
"""Where a message of each type lies in the model of these tests; those not named here lie inside one of these."""


def small_model() -> onnx.ModelProto:
    """Return a network with a function, an attribute and a weight."""
    weight = numpy_helper.from_array(np.arange(4, dtype=np.float32), "w")
    node = helper.make_node("Twice", ["x"], ["t"], domain="own", alpha=1.5)
    function = helper.make_function(
        "own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    add = helper.make_node("Add", ["t", "w"], ["y"])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in "xy"]
    graph = helper.make_graph([node, add], "g", values[:1], values[1:], [weight])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, functions=[function], opset_imports=opsets, ir_version=8)


def identity_of(proto: onnx.ModelProto) -> str:
    """Return the identity of a model without external weights."""
    return model_identity(proto, Path(), "model")


def change(message: Any, field: FieldDescriptor) -> None:
    """Give a field another value."""
    repeated = not isinstance(getattr(message, field.name), (bool, int, float, str, bytes)) and hasattr(
        getattr(message, field.name), "append"
    )
    if field.message_type is not None:
        target = getattr(message, field.name).add() if repeated else getattr(message, field.name)
        target.SetInParent()
        fill_message(target)
        return
    value: Any = {field.TYPE_STRING: "other", field.TYPE_BYTES: b"other"}.get(field.type, WORDS.get(field.name, 3))
    if repeated:
        getattr(message, field.name).append(value)
    else:
        setattr(message, field.name, value)


def fill_message(message: Any) -> None:
    """Give a new message content: what it needs to be valid, a name, or whatever it has first."""
    tensor = numpy_helper.from_array(np.ones(1, np.int64), "other")
    contents = {
        "TensorProto": tensor,
        "SparseTensorProto": onnx.SparseTensorProto(dims=[1], values=tensor, indices=tensor),
        "GraphProto": onnx.GraphProto(node=[helper.make_node("Neg", ["x"], ["y"])]),
    }
    kind = message.DESCRIPTOR.name
    if kind in contents:
        message.CopyFrom(contents[kind])
    else:
        names = [f for f in message.DESCRIPTOR.fields if f.name in {"name", "key", "tensor_name", "op_type"}]
        change(message, (names or list(message.DESCRIPTOR.fields))[0])


def messages_below(message: Descriptor, seen: dict[str, Descriptor]) -> dict[str, Descriptor]:
    """Return every message type that one can hold, by name."""
    if message.name not in seen:
        seen[message.name] = message
        for field in message.fields:
            if field.message_type is not None:
                messages_below(field.message_type, seen)
    return seen


def every_field() -> list[Any]:
    """Return every field of the messages that lie at a place of their own."""
    messages = messages_below(onnx.ModelProto.DESCRIPTOR, {})
    fields = [(name, field) for name, message in messages.items() if name in PLACES for field in message.fields]
    return [pytest.param(name, field, id=f"{name}.{field.name}") for name, field in fields]


@pytest.mark.parametrize(("name", "field"), every_field())
def test_every_field_enters_the_identity_unless_it_is_documented_to_have_no_influence(
    name: str, field: FieldDescriptor
) -> None:
    before, after = small_model(), small_model()
    PLACES[name](before)
    if name == "TensorProto" and field.name in STORAGE:
        return  # see test_the_values_of_a_weight_enter_and_not_their_storage
    change(PLACES[name](after), field)
    ignored = field.name in REMARKS or field.name in IGNORED.get(name, ())
    assert (identity_of(after) == identity_of(before)) == ignored


def test_what_is_ignored_exists() -> None:
    messages = messages_below(onnx.ModelProto.DESCRIPTOR, {})
    fields = {name: {field.name for field in message.fields} for name, message in messages.items()}
    assert all(names <= fields[message] for message, names in IGNORED.items())
    assert fields["TensorProto"] >= STORAGE


def test_every_message_lies_at_a_known_place_or_inside_one() -> None:
    """A new kind of message of a new ONNX must be looked at here."""
    inside = {
        "StringStringEntryProto", "TrainingInfoProto", "Segment", "Dimension", "Tensor", "Sequence", "Map", "Optional",
        "SparseTensor", "Opaque", "ShardingSpecProto", "ShardedDimProto", "SimpleShardedDimProto",
        "IntIntListEntryProto",
    }  # fmt: skip
    assert set(messages_below(onnx.ModelProto.DESCRIPTOR, {})) <= {*PLACES, *inside}


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int64, np.int8, np.uint64, np.bool_])
def test_the_values_of_a_weight_enter_and_not_their_storage(dtype: type, tmp_path: Path) -> None:
    values = np.array([0, 1, 1, 0]).astype(dtype)
    raw, listed, outside = small_model(), small_model(), small_model()
    raw.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "w"))
    kind = helper.np_dtype_to_tensor_dtype(values.dtype)
    listed.graph.initializer[0].CopyFrom(helper.make_tensor("w", kind, [4], values.tolist()))
    outside.graph.initializer[0].CopyFrom(
        TensorProto(name="w", data_type=kind, dims=[4], data_location=TensorProto.EXTERNAL)
    )
    outside.graph.initializer[0].external_data.add(key="location", value="w.bin")
    (tmp_path / "w.bin").write_bytes(values.tobytes())
    assert not listed.graph.initializer[0].HasField("raw_data")
    assert identity_of(raw) == identity_of(listed) == model_identity(outside, tmp_path, "")
    (tmp_path / "w.bin").write_bytes(np.roll(values, 1).tobytes())
    assert model_identity(outside, tmp_path, "") != identity_of(raw)


def test_packed_types_have_one_identity() -> None:
    raw, listed = small_model(), small_model()
    listed.graph.initializer[0].CopyFrom(helper.make_tensor("w", TensorProto.INT4, [3], [1, -2, 3]))
    packed = helper.make_tensor("w", TensorProto.INT4, [3], bytes([0xE1, 0x03]), raw=True)
    raw.graph.initializer[0].CopyFrom(packed)
    assert identity_of(raw) == identity_of(listed)


def test_external_values_of_sparse_attributes_are_found_and_enter(tmp_path: Path) -> None:
    proto = small_model()
    sparse = onnx.SparseTensorProto(dims=[4], indices=numpy_helper.from_array(np.zeros(1, np.int64)))
    sparse.values.CopyFrom(TensorProto(name="s", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL))
    sparse.values.external_data.add(key="location", value="s.bin")
    proto.graph.node.append(helper.make_node("Constant", [], ["c"], sparse_value=sparse))
    identities = []
    for number in (1.0, 2.0):
        (tmp_path / "s.bin").write_bytes(np.float32(number).tobytes())
        identities.append(model_identity(proto, tmp_path, ""))
    assert external_files(proto) == ("s.bin",)
    assert len(set(identities)) == 2


def test_a_field_that_this_onnx_does_not_know_enters() -> None:
    def with_unknown(part: Callable[[onnx.ModelProto], Any]) -> onnx.ModelProto:
        proto = small_model()
        part(proto).MergeFromString(bytes([0xFA, 0x3F, 3]) + b"new")  # field 1023, three bytes
        return proto

    places = [PLACES[name] for name in ("ModelProto", "GraphProto", "NodeProto", "AttributeProto", "TensorProto")]
    identities = {identity_of(with_unknown(place)) for place in places}
    assert len(identities | {identity_of(small_model())}) == len(places) + 1


def test_the_order_of_attributes_and_opsets_has_no_influence() -> None:
    one, two = small_model(), small_model()
    for proto in (one, two):
        proto.graph.node[0].attribute.append(helper.make_attribute("beta", 2))
    for items in (two.graph.node[0].attribute, two.opset_import):
        kept = list(items)[::-1]
        del items[:]
        items.extend(kept)
    assert identity_of(one) == identity_of(two)


def test_ordinary_models_keep_the_identity_of_version_0_1() -> None:
    """Tables and statistics of 0.1 stay usable."""
    proto = small_model()
    assert len(list(all_tensors(proto))) == 1
    assert len(list(all_nodes(proto.graph))) == 2
    assert identity_of(proto) == "bf90aadeb6664d9446cb3025b5c9625e892b33373eb8a9f62b867f71346d068c"
