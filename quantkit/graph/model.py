"""An ONNX model as it was read: its proto without external weights, where they are, and its identity.

The identity is a sha256 over what the network computes: operators, attributes, tensor names, opset imports, local
functions, and the values of all weights, wherever they are stored. Documentation, metadata and the file's name do
not enter it, so that a copy or a re-saved model stays the same model.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantkit.errors import ModelError
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
    """A model that was read and checked. `proto` holds no external weights; nobody edits it in place."""

    path: Path
    proto: onnx.ModelProto
    sha256: str

    @property
    def inputs(self) -> tuple[ModelInput, ...]:
        """The network's inputs, without initializers that old exporters list among them."""
        weights = {i.name for i in self.proto.graph.initializer}
        weights |= {i.values.name for i in self.proto.graph.sparse_initializer}
        return tuple(as_input(v) for v in self.proto.graph.input if v.name not in weights)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the graph's outputs."""
        return tuple(v.name for v in self.proto.graph.output)

    @property
    def opset(self) -> int:
        """Version of the default operator set."""
        return next((o.version for o in self.proto.opset_import if o.domain in ("", "ai.onnx")), 0)

    @property
    def metadata(self) -> Mapping[str, str]:
        """The model's `metadata_props`."""
        return {p.key: p.value for p in self.proto.metadata_props}

    @property
    def folder(self) -> Path:
        """Where external weights are looked for."""
        return self.path.resolve().parent


def load_model(path: str | os.PathLike[str]) -> Model:
    """Read an ONNX file. ModelError where there is none, or it is not one, or its weights are missing."""
    import onnx
    from google.protobuf.message import DecodeError

    file = Path(path)
    remedy = "give the path of an ONNX model"
    try:
        proto = onnx.load(os.fspath(file), load_external_data=False, format="protobuf")
    except DecodeError:
        raise ModelError(f"{file} is not an ONNX model, or is cut short", remedy=remedy) from None
    except OSError as error:
        raise ModelError(f"{file}: {error.strerror or error}", remedy=remedy) from None
    if not proto.graph.node or not proto.opset_import:
        raise ModelError(f"{file} is not an ONNX model: it holds no graph", remedy=remedy)
    return Model(file, proto, identity(proto, file.resolve().parent, str(file)))


def as_input(value: onnx.ValueInfoProto) -> ModelInput:
    """Name, dtype and shape of a graph input."""
    tensor = value.type.tensor_type
    dims: list[int | str | None] = [
        d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else d.dim_param or None for d in tensor.shape.dim
    ]
    return ModelInput(value.name, DTYPES.get(tensor.elem_type, f"type {tensor.elem_type}"), tuple(dims))


def identity(proto: onnx.ModelProto, folder: Path, where: str) -> str:
    """sha256 of graph and weights. ModelError where an external file is missing or too short."""
    digest = hashlib.sha256()

    def add(*parts: bytes | str) -> None:
        for part in parts:
            raw = part.encode() if isinstance(part, str) else part
            digest.update(len(raw).to_bytes(8, "little"))
            digest.update(raw)

    for opset in sorted(proto.opset_import, key=lambda o: o.domain):
        add("opset", opset.domain, str(opset.version))
    for function in proto.functions:
        add("function", plain(function).SerializeToString(deterministic=True))
    for kind, values in (("input", proto.graph.input), ("output", proto.graph.output)):
        for value in values:
            add(kind, value.name, value.type.SerializeToString(deterministic=True))
    for node in proto.graph.node:
        add("node", plain(node).SerializeToString(deterministic=True))
    for tensor in proto.graph.initializer:
        add("weight", tensor.name, str(tensor.data_type), str(list(tensor.dims)))
        for chunk in content(tensor, folder, where):
            digest.update(chunk)
    for sparse in proto.graph.sparse_initializer:
        add("sparse", sparse.SerializeToString(deterministic=True))
    return digest.hexdigest()


def plain(message: Any) -> Any:
    """A copy of a node or function without documentation and metadata."""
    copy = type(message)()
    copy.CopyFrom(message)
    copy.ClearField("doc_string")
    if "metadata_props" in copy.DESCRIPTOR.fields_by_name:
        copy.ClearField("metadata_props")
    for node in getattr(copy, "node", ()):
        node.ClearField("doc_string")
    return copy


def content(tensor: onnx.TensorProto, folder: Path, where: str) -> Iterator[bytes]:
    """The raw little-endian values of a weight, in chunks."""
    import onnx
    from onnx import numpy_helper

    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        yield from external_content(tensor, folder, where)
    elif tensor.HasField("raw_data"):
        yield tensor.raw_data
    elif tensor.data_type == onnx.TensorProto.STRING:
        yield from tensor.string_data
    else:
        yield numpy_helper.to_array(tensor).tobytes()


def external_content(tensor: onnx.TensorProto, folder: Path, where: str) -> Iterator[bytes]:
    """The bytes of a weight in a file of its own. ModelError."""
    entries = {e.key: e.value for e in tensor.external_data}
    path = folder / entries.get("location", "")
    remedy = "keep the model's external data files beside it"
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ModelError(
            f"{where}: weight {tensor.name!r} lies outside the model's folder: {path}",
            remedy=remedy,
        )
    length = int(entries["length"]) if "length" in entries else None
    try:
        with open(path, "rb") as file:
            file.seek(int(entries.get("offset", 0)))
            left = path.stat().st_size - file.tell() if length is None else length
            while left > 0:
                chunk = file.read(min(CHUNK, left))
                if not chunk:
                    raise ModelError(f"{where}: {path} ends inside weight {tensor.name!r}", remedy=remedy)
                left -= len(chunk)
                yield chunk
    except OSError as error:
        raise ModelError(f"{where}: {path}: {error.strerror or error}", remedy=remedy) from None
