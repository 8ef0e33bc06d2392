"""An ONNX model as it was read: its proto without external weights, the place of these, and its identity.

The identity is a sha256 over what the network computes: operators, attributes, tensor names, opset imports, local
functions, and the values of all weights, wherever they are stored. Documentation, metadata and the file name do not
enter it, so that a copy or a re-saved model keeps its identity.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from quantkit.errors import ModelError
from quantkit.graph.operators import ONNX_DOMAINS
from quantkit.graph.subgraphs import subgraphs
from quantkit.values import ModelInput

if TYPE_CHECKING:
    import onnx

CHUNK = 1 << 22
DTYPES: Mapping[int, str] = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool",
    10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 16: "bfloat16",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Model:
    """A model that was read and checked. `proto` has no external weights loaded and is never edited in place."""

    path: Path
    proto: onnx.ModelProto
    sha256: str

    @property
    def inputs(self) -> tuple[ModelInput, ...]:
        """The inputs of the network, without the initializers that old exporters list among them."""
        weights = {i.name for i in self.proto.graph.initializer}
        weights |= {i.values.name for i in self.proto.graph.sparse_initializer}
        return tuple(as_input(v) for v in self.proto.graph.input if v.name not in weights)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the graph's outputs."""
        return tuple(v.name for v in self.proto.graph.output)

    @property
    def opset(self) -> int:
        """The version of ONNX's own opset."""
        return default_opset(self.proto)

    @property
    def metadata(self) -> Mapping[str, str]:
        """The model's `metadata_props`."""
        return {p.key: p.value for p in self.proto.metadata_props}

    @property
    def folder(self) -> Path:
        """The folder of external weights: that of the path as given, even if it is a link."""
        return self.path.absolute().parent


def load_model(path: str | os.PathLike[str]) -> Model:
    """Read an ONNX file. ModelError if it is missing, is not an ONNX model, or lacks external weights."""
    import onnx
    from google.protobuf.message import DecodeError

    file = Path(path)
    remedy = "give the path of an ONNX model"
    try:
        proto = onnx.load(os.fspath(file), load_external_data=False, format="protobuf")
    except DecodeError:
        raise ModelError(f"{file} is not an ONNX model, or is truncated", remedy=remedy) from None
    except OSError as error:
        raise ModelError(f"{file}: {error.strerror or error}", remedy=remedy) from None
    if not proto.graph.node or not proto.opset_import:
        raise ModelError(f"{file} is not an ONNX model: it holds no graph", remedy=remedy)
    if not has_text_names(proto.graph):
        raise ModelError(f"{file} is damaged: one of its names is not text", remedy=remedy)
    return Model(file, proto, model_identity(proto, file.absolute().parent, str(file)))


def has_text_names(graph: onnx.GraphProto) -> bool:
    """Return whether every name is UTF-8; protobuf hands out others as bytes, or refuses them."""
    try:
        texts = [
            text for node in graph.node for text in (node.op_type, node.domain, node.name, *node.input, *node.output)
        ]
        for values in (graph.initializer, graph.input, graph.output, graph.value_info):
            texts.extend(value.name for value in values)
    except UnicodeDecodeError:
        return False
    return all(isinstance(text, str) for text in texts)


def node_name(node: onnx.NodeProto) -> str:
    """Return a node's name, or that of its first output if it has none."""
    return str(node.name or next((name for name in node.output if name), ""))


def as_input(value: onnx.ValueInfoProto) -> ModelInput:
    """Return name, dtype and shape of a graph input."""
    tensor = value.type.tensor_type
    dims: list[int | str | None] = [
        d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else d.dim_param or None for d in tensor.shape.dim
    ]
    return ModelInput(value.name, DTYPES.get(tensor.elem_type, f"type {tensor.elem_type}"), tuple(dims))


def model_identity(proto: onnx.ModelProto, folder: Path, where: str) -> str:
    """Return the sha256 of graph and weights. ModelError if an external file is missing or too short."""
    digest = hashlib.sha256()

    def add(*parts: bytes | str) -> None:
        for part in parts:
            raw = part.encode() if isinstance(part, str) else part
            digest.update(len(raw).to_bytes(8, "little"))
            digest.update(raw)

    def add_graph(graph: onnx.GraphProto) -> None:
        for kind, values in (("input", graph.input), ("output", graph.output)):
            for value in values:
                add(kind, value.name, value.type.SerializeToString(deterministic=True))
        for tensor in graph.initializer:
            add_tensor(tensor)
        for sparse in graph.sparse_initializer:
            add("sparse", str(list(sparse.dims)))
            add_tensor(sparse.values)
            add_tensor(sparse.indices)
        for node in graph.node:
            add_node(node)

    def add_node(node: onnx.NodeProto) -> None:
        add("node", node.op_type, node.domain, node.name, *node.input, "→", *node.output)
        for attribute in sorted(node.attribute, key=lambda a: a.name):
            add_attribute(attribute)

    def add_attribute(attribute: onnx.AttributeProto) -> None:
        add("attribute", attribute.name, attribute.ref_attr_name, str(attribute.type))
        for tensor in (*attribute.tensors, *([attribute.t] if attribute.HasField("t") else [])):
            add_tensor(tensor)
        for graph in subgraphs(attribute):
            add_graph(graph)
        rest = type(attribute)()
        rest.CopyFrom(attribute)
        for field in ("doc_string", "t", "tensors", "g", "graphs"):
            rest.ClearField(field)
        add(rest.SerializeToString(deterministic=True))

    def add_tensor(tensor: onnx.TensorProto) -> None:
        add("weight", tensor.name, str(tensor.data_type), str(list(tensor.dims)))
        for chunk in tensor_bytes(tensor, folder, where):
            digest.update(chunk)

    for opset in sorted(proto.opset_import, key=lambda o: o.domain):
        add("opset", opset.domain, str(opset.version))
    for function in proto.functions:
        add("function", function.domain, function.name, *function.input, "→", *function.output, *function.attribute)
        for opset in function.opset_import:
            add("opset", opset.domain, str(opset.version))
        for attribute in function.attribute_proto:
            add_attribute(attribute)
        for node in function.node:
            add_node(node)
    add_graph(proto.graph)
    return digest.hexdigest()


def external_files(proto: onnx.ModelProto) -> tuple[str, ...]:
    """Return the files beside a model that hold its weights, in the order of the weights."""
    import onnx

    found: dict[str, None] = {}

    def look(tensors: Iterable[onnx.TensorProto]) -> None:
        for tensor in tensors:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                found.update((entry.value, None) for entry in tensor.external_data if entry.key == "location")

    def look_into(nodes: Iterable[onnx.NodeProto]) -> None:
        for attribute in (attribute for node in nodes for attribute in node.attribute):
            look((*attribute.tensors, *([attribute.t] if attribute.HasField("t") else [])))
            for graph in subgraphs(attribute):
                look(graph.initializer)
                look_into(graph.node)

    look(proto.graph.initializer)
    look(part for sparse in proto.graph.sparse_initializer for part in (sparse.values, sparse.indices))
    look_into(proto.graph.node)
    for function in proto.functions:
        look_into(function.node)
    return tuple(found)


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
            yield numpy_helper.to_array(tensor).tobytes()
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
        size = path.stat().st_size
        left = size - offset if "length" not in entries else length
        if offset < 0 or left < 0 or offset + left > size:
            raise ModelError(f"{where}: {path} ends inside weight {tensor.name!r}", remedy=remedy)
        with open(path, "rb") as file:
            file.seek(offset)
            while left > 0:
                chunk = file.read(min(CHUNK, left))
                left -= len(chunk) or left
                yield chunk
    except OSError as error:
        raise ModelError(f"{where}: {path}: {error.strerror or error}", remedy=remedy) from None
    except ValueError:
        raise ModelError(f"{where}: weight {tensor.name!r} has no valid position in {path}", remedy=remedy) from None


def dtype_name(code: int) -> str:
    """Return the name of an ONNX element type: `float32`, `int8`, `float8e4m3fn` …."""
    from onnx import TensorProto

    known: Mapping[int, str] = {number: name.lower() for name, number in TensorProto.DataType.items()}
    return DTYPES.get(code) or known.get(code, f"type {code}")


def default_opset(proto: onnx.ModelProto) -> int:
    """Return the version of ONNX's own opset."""
    return next((o.version for o in proto.opset_import if o.domain in ONNX_DOMAINS), 0)
