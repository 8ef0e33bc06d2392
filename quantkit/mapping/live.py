"""Compilation of the network of a map by TensorRT-RTX, while the map is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from quantkit._version import __version__
from quantkit.backends.tensorrt_rtx.compiling import compile_network, require_compiler
from quantkit.backends.tensorrt_rtx.record import CompiledRecord
from quantkit.backends.tensorrt_rtx.static_shapes import static_shapes
from quantkit.graph.model import Model
from quantkit.mapping.sources import MapFiles
from quantkit.provenance import ModelRecord


def with_compiled(
    files: MapFiles, model: Model, architecture: str, shapes: Sequence[str], phase: Callable[[str], None]
) -> MapFiles:
    """Return the sources of a map with the network compiled for one architecture.

    UsageError for an unknown architecture; ModelError if the network is refused; BackendError without TensorRT-RTX.
    """
    require_compiler()
    phase(f"compiling for {architecture}")
    network = compile_network(model, static_shapes(model.inputs, shapes), architecture=architecture)
    record = ModelRecord(file=model.path.name, sha256=model.sha256)
    return replace(files, compiled=CompiledRecord(quantkit=__version__, model=record, networks=(network,)))
