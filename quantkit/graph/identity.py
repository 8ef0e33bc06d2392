"""The identity of a model: a sha256 over everything in it that influences what it computes.

It covers every field of every message in the file, also those that this version of ONNX does not know, except the ones
in `IGNORED`. Weights enter by their values, wherever and however these are stored (`STORAGE`), so that a copy or a
re-saved model keeps its identity.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from quantkit.errors import ModelError
from quantkit.graph.messages import all_tensors, copy_without, is_external, sparse_tensors
from quantkit.graph.subgraphs import subgraphs
from quantkit.regular_file import open_regular, refuse_irregular

if TYPE_CHECKING:
    import onnx

CHUNK = 1 << 22
REMARKS = frozenset({"doc_string", "metadata_props"})
"""Fields that document, in every message."""
IGNORED: Mapping[str, frozenset[str]] = {
    # Who wrote the file, when, and in which version of the format; what training would do beside inference.
    "ModelProto": frozenset(
        {"ir_version", "producer_name", "producer_version", "domain", "model_version", "training_info"}
    ),
    # Types that follow from the operators.
    "GraphProto": frozenset({"name", "value_info"}),
    "FunctionProto": frozenset({"value_info"}),
}
"""Fields beside `REMARKS` that no inference depends on, by message."""
STORAGE = frozenset({
    "raw_data", "float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data",
    "external_data", "data_location",
})  # fmt: skip
"""Fields that hold the values of a tensor, or their place; the values enter the identity instead."""


def model_identity(proto: onnx.ModelProto, folder: Path, where: str) -> str:
    """Return the sha256 of graph and weights. ModelError if an external file is missing or too short."""
    digest = IdentityDigest(folder, where)
    digest.add_model(proto)
    return digest.hexdigest()


class IdentityDigest:
    """An accumulator of the identity. folder: the place of external weights. where: the model, for errors.

    Each method adds what it names and ends with `_add_rest`, which adds every field that was not named: a field cannot
    be forgotten, and models without unusual fields have the identity that quantkit 0.1 gave them.
    """

    def __init__(self, folder: Path, where: str) -> None:
        self._sha256, self._folder, self._where = hashlib.sha256(), folder, where

    def hexdigest(self) -> str:
        """Return the identity of what was added."""
        return self._sha256.hexdigest()

    def add_model(self, proto: onnx.ModelProto) -> None:
        """Add a whole model."""
        self._add_opsets(sorted(proto.opset_import, key=lambda o: o.domain))
        for function in proto.functions:
            names = (*function.input, "→", *function.output, *function.attribute)
            self._add("function", function.domain, function.name, *names)
            self._add_opsets(function.opset_import)
            for attribute in function.attribute_proto:
                self._add_attribute(attribute)
            for node in function.node:
                self._add_node(node)
            self._add_rest(
                function, "domain", "name", "input", "output", "attribute", "opset_import", "attribute_proto", "node"
            )
        self._add_graph(proto.graph)
        self._add_rest(proto, "opset_import", "functions", "graph")

    def _add(self, *parts: bytes | str) -> None:
        for part in parts:
            raw = part.encode() if isinstance(part, str) else part
            self._sha256.update(len(raw).to_bytes(8, "little"))
            self._sha256.update(raw)

    def _add_rest(self, message: Any, *added: str) -> None:
        """Add the fields of a message that are neither added already nor without influence, known to ONNX or not."""
        from google.protobuf.unknown_fields import UnknownFieldSet

        kind = message.DESCRIPTOR.name
        done = {*added, *REMARKS, *IGNORED.get(kind, ())}
        for field, value in message.ListFields():
            if field.name in done or not value:
                continue
            parts = [value] if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__") else value
            self._add("field", kind, field.name, str(len(parts)))
            self._add(*(serialized(part) for part in parts))
        unknowns = UnknownFieldSet(message)
        for unknown in (unknowns[i] for i in range(len(unknowns))):
            self._add("unknown field", kind, f"{unknown.field_number} {unknown.wire_type} {unknown.data!r}")

    def _add_opsets(self, opsets: Any) -> None:
        for opset in opsets:
            self._add("opset", opset.domain, str(opset.version))
            self._add_rest(opset, "domain", "version")

    def _add_graph(self, graph: onnx.GraphProto) -> None:
        for kind, values in (("input", graph.input), ("output", graph.output)):
            for value in values:
                self._add(kind, value.name, value.type.SerializeToString(deterministic=True))
                self._add_rest(value, "name", "type")
        for tensor in graph.initializer:
            self._add_tensor(tensor)
        for sparse in graph.sparse_initializer:
            self._add_sparse(sparse)
        for node in graph.node:
            self._add_node(node)
        self._add_rest(graph, "input", "output", "initializer", "sparse_initializer", "node")

    def _add_node(self, node: onnx.NodeProto) -> None:
        self._add("node", node.op_type, node.domain, node.name, *node.input, "→", *node.output)
        for attribute in sorted(node.attribute, key=lambda a: a.name):
            self._add_attribute(attribute)
        self._add_rest(node, "op_type", "domain", "name", "input", "output", "attribute")

    def _add_attribute(self, attribute: onnx.AttributeProto) -> None:
        self._add("attribute", attribute.name, attribute.ref_attr_name, str(attribute.type))
        for tensor in (*attribute.tensors, *([attribute.t] if attribute.HasField("t") else [])):
            self._add_tensor(tensor)
        for sparse in sparse_tensors(attribute):
            self._add_sparse(sparse)
        for graph in subgraphs(attribute):
            self._add_graph(graph)
        added = ("t", "tensors", "sparse_tensor", "sparse_tensors", "g", "graphs")
        rest = copy_without(attribute, *added, *REMARKS)
        self._add(rest.SerializeToString(deterministic=True))
        self._add_rest(attribute, *(field.name for field in attribute.DESCRIPTOR.fields))

    def _add_sparse(self, sparse: onnx.SparseTensorProto) -> None:
        self._add("sparse", str(list(sparse.dims)))
        self._add_tensor(sparse.values)
        self._add_tensor(sparse.indices)
        self._add_rest(sparse, "dims", "values", "indices")

    def _add_tensor(self, tensor: onnx.TensorProto) -> None:
        self._add("weight", tensor.name, str(tensor.data_type), str(list(tensor.dims)))
        for chunk in tensor_bytes(tensor, self._folder, self._where):
            self._sha256.update(chunk)
        self._add_rest(tensor, "name", "data_type", "dims", *STORAGE)


def serialized(value: Any) -> bytes:
    """Return the value of a field as bytes: a message as protobuf writes it, anything else as text."""
    if hasattr(value, "SerializeToString"):
        content: bytes = value.SerializeToString(deterministic=True)
        return content
    return repr(value).encode()


def external_files(proto: onnx.ModelProto) -> tuple[str, ...]:
    """Return the files beside a model that hold its weights, in the order of the weights."""
    places = (e for t in all_tensors(proto) if is_external(t) for e in t.external_data if e.key == "location")
    return tuple(dict.fromkeys(entry.value for entry in places))


def tensor_bytes(tensor: onnx.TensorProto, folder: Path, where: str) -> Iterator[bytes]:
    """Yield the raw little-endian values of a weight in chunks."""
    import onnx
    from onnx import numpy_helper

    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        yield from external_tensor_bytes(tensor, folder, where)
    elif tensor.HasField("raw_data"):
        yield tensor.raw_data
    elif tensor.data_type == onnx.TensorProto.STRING:
        yield from (len(text).to_bytes(8, "little") + text for text in tensor.string_data)
    else:
        try:
            yield numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
            raise ModelError(
                f"{where}: weight {tensor.name!r} is damaged: {error}", remedy="export the model again"
            ) from None


def external_tensor_bytes(tensor: onnx.TensorProto, folder: Path, where: str) -> Iterator[bytes]:
    """Yield the bytes of a weight that lies in another file. ModelError if the file does not hold them."""
    entries = {e.key: e.value for e in tensor.external_data}
    location = PurePath(entries.get("location", ""))
    remedy = "keep the model's external data files beside it"
    if not location.name or location.is_absolute() or ".." in location.parts:
        raise ModelError(f"{where}: weight {tensor.name!r} lies outside the model's folder: {location}", remedy=remedy)
    path = folder / location
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", -1))
        size = refuse_irregular(path).stat().st_size
        left = size - offset if "length" not in entries else length
        if offset < 0 or left < 0 or offset + left > size:
            raise ModelError(f"{where}: {path} ends inside weight {tensor.name!r}", remedy=remedy)
        with open_regular(path) as file:
            file.seek(offset)
            while left > 0:
                chunk = file.read(min(CHUNK, left))
                left -= len(chunk) or left
                yield chunk
    except OSError as error:
        raise ModelError(f"{where}: {path}: {error.strerror or error}", remedy=remedy) from None
    except ValueError:
        raise ModelError(f"{where}: weight {tensor.name!r} has no valid position in {path}", remedy=remedy) from None
