"""Models on disk: one file, or a graph and a file of weights beside it; all of them are written, or none.

    x.onnx         the graph, and the weights if they are small
    x.onnx.data    the weights, if the source has external ones or all together would exceed protobuf's 2 GB

Source of the layout: ONNX, "External Data" (docs/ExternalData.md): locations relative to the model, offsets of large
tensors at multiples of 4096 so that they can be mapped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import IO, TYPE_CHECKING

from quantkit.errors import OutputError
from quantkit.graph.identity import tensor_bytes
from quantkit.graph.messages import all_tensors, copy_without, is_external
from quantkit.paths import beside, same_file
from quantkit.regular_file import readable_name
from quantkit.staging import StagedFiles, staged_files

if TYPE_CHECKING:
    import onnx

ONE_FILE = 1_800_000_000
"""Largest model in one file, in bytes; protobuf refuses messages of 2 GB, and readers need room for what they add."""
SMALL = 1024
"""Size in bytes below which a weight stays in the graph: shapes, axes, scales, which readers need at once."""
ALIGNMENT, LARGE_ALIGNMENT, LARGE = 64, 4096, 1 << 16
"""Alignment of weights in bytes: 64, and a page from 64 KiB on."""


def saved_files(proto: onnx.ModelProto, output: Path) -> tuple[Path, ...]:
    """Return the files that `write_model` writes: the model, and its weights if they lie in a file of their own."""
    return (output, data_path(output)) if needs_data_file(proto) else (output,)


def write_model(proto: onnx.ModelProto, folder: Path, output: Path, *, force: bool = True) -> tuple[Path, ...]:
    """Write a model, all of its files or none, and return their paths. folder: the place of its external weights.

    Weights are written one after another: memory never holds more than the graph and one chunk of a weight. The same
    model gives the same bytes. ModelError if an external weight is missing; OutputError if something cannot be written,
    or if a file with weights of the source itself would be replaced. force: False where no file may lie there, and one
    that does is a StaleError.
    """
    with staged_files(may_replace=lambda _: force) as new:
        return stage_model(proto, folder, output, new)


def stage_model(proto: onnx.ModelProto, folder: Path, output: Path, new: StagedFiles) -> tuple[Path, ...]:
    """Write a model as new files that are not in place yet, and return their paths; otherwise as `write_model`."""
    files = saved_files(proto, output)
    refuse_source_weights(proto, folder, files)
    if len(files) == 1:
        new.write(output, proto.SerializeToString(deterministic=True))
        return files
    with open(new.place(files[1]), "xb") as file:
        graph = write_data_file(proto, folder, file, files[1].name)
    if graph.ByteSize() > ONE_FILE:
        raise OutputError(
            f"cannot write {output}: its operators alone exceed the 2 GB of protobuf",
            remedy="export the model with its weights as initializers",
        )
    new.write(output, graph.SerializeToString(deterministic=True))
    return files


def data_path(output: Path) -> Path:
    """Return the path of the file with a model's weights. The model names it, in UTF-8."""
    return beside(output, f"{readable_name(output.name)}.data")


def needs_data_file(proto: onnx.ModelProto) -> bool:
    """Return whether weights need a file of their own."""
    if any(map(is_external, all_tensors(proto))):
        return True
    large = sum(tensor_size(tensor) for tensor in proto.graph.initializer if tensor_size(tensor) >= SMALL)
    # To know its size, protobuf writes a message, which takes three times its memory; one of 2 GB has none.
    return large > ONE_FILE or large + without_values(proto).ByteSize() > ONE_FILE


def refuse_source_weights(proto: onnx.ModelProto, folder: Path, files: tuple[Path, ...]) -> None:
    """Raise OutputError if a file that is to be written holds weights of the source."""
    for tensor in all_tensors(proto):
        if not is_external(tensor):
            continue
        source = folder / PurePath(location_of(tensor))
        for path in files:
            if same_file(path, source):
                raise OutputError(
                    f"cannot write {path}: it holds the weights of the source model",
                    remedy="write elsewhere with --output",
                )


def write_data_file(proto: onnx.ModelProto, folder: Path, file: IO[bytes], location: str) -> onnx.ModelProto:
    """Write large weights to `file`, which lies beside the model as `location`; return a copy of the model without
    them.
    """
    copy = without_values(proto)
    for tensor, source in zip(all_tensors(copy), all_tensors(proto), strict=True):
        pieces = tensor_bytes(source, folder, f"the model in {folder}")
        if is_external(source) and tensor_size(source) < SMALL:
            clear_location(tensor)
            tensor.raw_data = b"".join(pieces)
        elif is_external(source) or (source.HasField("raw_data") and not tensor.HasField("raw_data")):
            clear_location(tensor)
            append_weight(tensor, pieces, file, tensor_size(source), location)
    return copy


def append_weight(tensor: onnx.TensorProto, pieces: Iterator[bytes], file: IO[bytes], size: int, location: str) -> None:
    """Append a weight to `file` and note its place in `tensor`."""
    import onnx

    file.write(b"\0" * (-file.tell() % (ALIGNMENT if size < LARGE else LARGE_ALIGNMENT)))
    offset = file.tell()
    for piece in pieces:
        file.write(piece)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", file.tell() - offset)):
        tensor.external_data.add(key=key, value=str(value))


def location_of(tensor: onnx.TensorProto) -> str:
    """Return the name of the file in which the values of a weight lie."""
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")


def clear_location(tensor: onnx.TensorProto) -> None:
    """Clear the place where the values of a weight lay."""
    tensor.ClearField("data_location")
    tensor.ClearField("external_data")


def store_inside(proto: onnx.ModelProto, folder: Path, where: str) -> None:
    """Put weights that lie in other files into the model, in place. ModelError if a file lacks them."""
    for tensor in all_tensors(proto):
        if is_external(tensor):
            put_inside(tensor, folder, where)


def put_inside(tensor: onnx.TensorProto, folder: Path, where: str) -> None:
    """Put the values of a weight from its file into its message, in place. ModelError if the file lacks them."""
    content = b"".join(tensor_bytes(tensor, folder, where))
    clear_location(tensor)
    tensor.raw_data = content


def tensor_size(tensor: onnx.TensorProto) -> int:
    """Return the size of the values of a weight in bytes; an upper bound for packed types."""
    from onnx import helper

    if tensor.HasField("raw_data"):
        return len(tensor.raw_data)
    item: int = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return int(math.prod(tensor.dims)) * item


def weight_bytes(proto: onnx.ModelProto) -> int:
    """Return the size of the values of a network's initializers in bytes, wherever they lie."""
    return sum(map(tensor_size, proto.graph.initializer))


def without_values(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a model whose large initializers have names, types and shapes, but no values."""
    copy: onnx.ModelProto = copy_without(proto, "graph")
    copy.graph.CopyFrom(copy_without(proto.graph, "initializer"))
    for weight in proto.graph.initializer:
        large = weight.HasField("raw_data") and tensor_size(weight) >= SMALL
        copy.graph.initializer.append(copy_without(weight, "raw_data") if large else weight)
    return copy
