"""Weights in temporary files while a network is worked on: its copies share them, and a copy is a few kilobytes.

A protobuf message holds the values of its weights, and every copy of it holds them again; so does a session that is
opened from it. Weights that lie in a file are read where they are needed, one after another, and onnxruntime maps them.

    network as it was read      weights-0.data
    after a repair              weights-0.data, and weights-1.data with those that it changed

A file is removed with the last network that reads it, the folder at the end of the `with` block.
"""

from __future__ import annotations

import ctypes
import os
import sys
import weakref
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import TYPE_CHECKING, Any

from quantkit.errors import OutputError
from quantkit.graph.identity import external_files, tensor_bytes
from quantkit.graph.messages import all_tensors, copy_without, is_external
from quantkit.graph.model import Model
from quantkit.graph.save import SMALL, append_weight, location_of, put_inside, tensor_size

if TYPE_CHECKING:
    from io import BufferedWriter

    import onnx


class StoredFile:
    """A file with weights, for as long as something refers to this object."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        weakref.finalize(self, remove_file, path)


class WeightStore:
    """A temporary folder for the weights of a network, and of those that are derived from it.

    Weights that lay in files before are reached by links, under their own names. OutputError where there is no place.
    """

    def __init__(self) -> None:
        try:
            self._temporary = TemporaryDirectory(prefix="quantkit-", ignore_cleanup_errors=True)
        except OSError as error:
            raise no_place(error) from None
        self.folder = Path(self._temporary.name)
        self._files = 0

    def __enter__(self) -> WeightStore:
        """Return the store itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the folder. Networks whose weights lie there cannot be used any more."""
        self._temporary.cleanup()

    def put(self, model: Model) -> Model:
        """Return the network with its large initializers in files of this folder; the model itself does not change.

        Only what lies inside the message is written. OutputError.
        """
        names = external_files(model.proto)
        try:
            if model.store is not self:
                for name in names:
                    self._link(model.folder, name)
            if not any(map(is_movable, model.proto.graph.initializer)):
                return replace(model, store=self)
            kept = [stored for stored in model.stored if stored.name in names]
            with self._new_file(names) as out:
                proto, file = self._moved(model, out)
            return_freed_memory()  # of the copies that came before
        except OSError as error:
            raise no_place(error) from None
        return replace(model, proto=proto, store=self, stored=(*kept, StoredFile(self.folder / file)))

    def _moved(self, model: Model, out: BufferedWriter) -> tuple[onnx.ModelProto, str]:
        """Return a copy of the network without large values, which are written to a new file, and its name."""
        proto: onnx.ModelProto = copy_without(model.proto, "graph")
        proto.graph.CopyFrom(copy_without(model.proto.graph, "initializer"))
        file = Path(out.name).name
        for weight in model.proto.graph.initializer:
            if not is_movable(weight):
                proto.graph.initializer.append(weight)
                continue
            moved = copy_without(weight, "raw_data", "float_data", "double_data")
            pieces = tensor_bytes(weight, model.folder, str(model.path))
            append_weight(moved, pieces, out, tensor_size(weight), file)
            proto.graph.initializer.append(moved)
        return proto, file

    def _new_file(self, taken: tuple[str, ...]) -> BufferedWriter:
        """Return a new file under a name that no other file with weights has, nor a link that leads nowhere."""
        while True:
            name, self._files = f"weights-{self._files}.data", self._files + 1
            if name not in taken:
                with suppress(FileExistsError):
                    return open(self.folder / name, "xb")

    def _link(self, folder: Path, name: str) -> None:
        """Make a file with weights reachable from this folder."""
        place = self.folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.is_symlink():
            place.symlink_to(os.path.abspath(folder / name))


def is_movable(weight: onnx.TensorProto) -> bool:
    """Return whether a weight lies inside the message, and is large. What is not stored raw has to be float."""
    import onnx

    raw = weight.HasField("raw_data") or weight.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
    return raw and not is_external(weight) and tensor_size(weight) >= SMALL


def take_stored_weights(proto: onnx.ModelProto, model: Model) -> None:
    """Put the weights that lie in a network's store into a message, in place; those in files of its own stay there."""
    names = {stored.name for stored in model.stored}
    for tensor in all_tensors(proto):
        if is_external(tensor) and location_of(tensor) in names:
            put_inside(tensor, model.folder, str(model.path))


def remove_file(path: Path) -> None:
    """Remove a file, unless it is gone with its folder, or in use on a system that keeps it then."""
    with suppress(OSError):
        path.unlink()


def no_place(error: OSError) -> OutputError:
    """Return the error of a folder that takes no files."""
    return OutputError(
        f"cannot write weights to a temporary file: {error.strerror or error}",
        remedy="set TMPDIR to a folder with room for the weights of the network, four times",
    )


def return_freed_memory() -> None:
    """Give freed pages of the heap back to the system, where the C library can; others do so by themselves.

    glibc gives back the end of its heap alone. What a session of onnxruntime leaves between smaller blocks can be twice
    the weights of its network, and the next one does not fit in there.
    """
    if (trim := heap_trimmer()) is not None:
        trim(0)


@cache
def heap_trimmer() -> Any:
    """Return glibc's malloc_trim; None where there is another C library."""
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
