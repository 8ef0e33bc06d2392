"""An ONNX model as it was read: its proto without external weights, the place of these, and its identity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from quantkit.graph.identity import external_files
from quantkit.graph.masked_scores import masked_scores
from quantkit.graph.operators import ONNX_DOMAINS
from quantkit.paths import exists, real_path
from quantkit.regular_file import FileStamp
from quantkit.values import ModelInput, with_batch_axes

if TYPE_CHECKING:
    import onnx

DTYPES: Mapping[int, str] = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool",
    10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 16: "bfloat16",
}  # fmt: skip


IN_MEMORY = Path("(in memory)", "model.onnx")
"""The path of a network that was given as a value; there is no such file."""


@dataclass(frozen=True, slots=True)
class ReadFile:
    """The file that a model was read from: its identity, and stamps of it and of its external weights before that.

    A network that was derived from a model has the same. own: empty for a model in memory.
    """

    sha256: str = ""
    weights: tuple[FileStamp, ...] = ()
    own: tuple[FileStamp, ...] = ()


class WeightPlace(Protocol):
    """A folder that weights are moved to (`quantkit.graph.weight_store`)."""

    folder: Path

    def put(self, model: Model) -> Model:
        """Return the network with its weights in files of the folder."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model that was read and checked. `proto` has no external weights loaded and is never edited in place.

    file_names: node → its name in the file, for nodes that got another because several had the same. store: where its
    weights lie while it is worked on; None: inside it, or where its file has them. stored: its files there, which are
    removed with the last network that has them.
    """

    path: Path
    proto: onnx.ModelProto
    sha256: str
    file_names: Mapping[str, str] = field(default_factory=dict)
    read: ReadFile = field(default=ReadFile(), compare=False, repr=False)
    store: WeightPlace | None = field(default=None, compare=False, repr=False)
    stored: tuple[Any, ...] = field(default=(), compare=False, repr=False)

    def with_weights_stored(self) -> Model:
        """Return the network with its weights in its store, if it has one. OutputError."""
        return self if self.store is None else self.store.put(self)

    @property
    def inputs(self) -> tuple[ModelInput, ...]:
        """The inputs of the network, without the initializers that old exporters list among them."""
        weights, masks = weight_names(self.proto.graph), masked_scores(self.proto.graph)
        found = (as_input(v) for v in self.proto.graph.input if v.name not in weights)
        return with_batch_axes([replace(i, mask=True) if i.name in masks else i for i in found])

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the graph's outputs."""
        return tuple(v.name for v in self.proto.graph.output)

    @property
    def files(self) -> tuple[Path, ...]:
        """The file of the model, and those beside it that hold its weights; none of a model in memory."""
        return (
            () if self.path == IN_MEMORY else (self.path, *(self.folder / name for name in external_files(self.proto)))
        )

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
        """The folder of external weights."""
        return self.store.folder if self.store else weights_folder(self.path, self.proto)


def weights_folder(path: Path, proto: onnx.ModelProto) -> Path:
    """Return the folder of a model's external weights: that of the path as given, as in the caches of model hubs.

    Where the path is a link and its weights are missing there, it is the folder that the link leads to.
    """
    here = path.absolute().parent
    if path.is_symlink() and any(not exists(here / name) for name in external_files(proto)):
        return real_path(path).parent
    return here


def weight_names(graph: onnx.GraphProto) -> set[str]:
    """Return the names of a graph's initializers, sparse ones too."""
    return {weight.name for weight in graph.initializer} | {s.values.name for s in graph.sparse_initializer}


def node_name(node: onnx.NodeProto) -> str:
    """Return a node's name, or that of its first output if it has none."""
    return str(node.name or next((name for name in node.output if name), ""))


def as_input(value: onnx.ValueInfoProto) -> ModelInput:
    """Return name, dtype and shape of a graph input; the dtype of what is no tensor is `sequence`, `optional` …."""
    tensor = value.type.tensor_type
    dims: list[int | str | None] = [
        d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else d.dim_param or None for d in tensor.shape.dim
    ]
    kind = (value.type.WhichOneof("value") or "tensor_type").removesuffix("_type")
    return ModelInput(value.name, dtype_name(tensor.elem_type) if kind == "tensor" else kind, tuple(dims))


def dtype_name(code: int) -> str:
    """Return the name of an ONNX element type: `float32`, `int8`, `float8e4m3fn` …."""
    from onnx import TensorProto

    known: Mapping[int, str] = {number: name.lower() for name, number in TensorProto.DataType.items()}
    return DTYPES.get(code) or known.get(code, f"type {code}")


def default_opset(proto: onnx.ModelProto) -> int:
    """Return the version of ONNX's own opset."""
    return next((o.version for o in proto.opset_import if o.domain in ONNX_DOMAINS), 0)
