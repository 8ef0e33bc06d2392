"""The kernels that compute the nodes of a network: of a TensorRT engine, or of a network compiled by TensorRT-RTX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quantkit.backends.engine_record import EngineRecord
from quantkit.backends.tensorrt_rtx.compiled import QUANTIZED, CompiledNetwork, Kernel
from quantkit.document import DocumentType
from quantkit.errors import BackendError


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """The kernel or engine layer that computes a node. precision: INT8, FP16 …, "" if unknown.

    types: that it reads and writes, `FP32 → INT8`. nodes: number of ONNX nodes in it. milliseconds: of one run of all
    of them. source: what describes it.
    """

    name: str
    precision: str
    kind: str
    nodes: int
    source: str
    types: str = ""
    bytes: int | None = None
    milliseconds: float | None = None
    reason: str = ""


def engine_kernels(record: EngineRecord, times: Mapping[str, float], source: str) -> dict[str, KernelFacts]:
    """Return ONNX node → the layer of an engine that computes it. times: milliseconds by layer."""
    found: dict[str, KernelFacts] = {}
    for layer in record.layers:
        facts = KernelFacts(
            name=layer.name,
            precision="" if layer.precision == "unknown" else layer.precision,
            kind=" ".join(filter(None, (layer.kind, layer.tactic))),
            nodes=len(layer.nodes),
            source=source,
            milliseconds=times.get(layer.name),
            reason=layer.reason or "",
        )
        for node in layer.nodes:
            found.setdefault(node, facts)
    return found


def compiled_kernels(network: CompiledNetwork, source: str) -> dict[str, KernelFacts]:
    """Return ONNX node → the kernel of a compiled network that computes it."""
    return {
        node: KernelFacts(
            name=kernel.name,
            precision=kernel_precision(kernel),
            kind=" ".join(filter(None, (kernel.kind, kernel.tactic))),
            nodes=len(kernel.nodes),
            source=f"{source}, {network.architecture}",
            types=kernel_types(kernel),
            bytes=kernel.bytes,
        )
        for node, kernel in network.by_node.items()
    }


def kernel_precision(kernel: Kernel) -> str:
    """Return the precision of a kernel: of what it multiplies, else of its largest input and of what it writes."""
    largest = sorted(kernel.reads, key=lambda tensor: -tensor.bytes)[:1]  # the others may be scales
    types = kernel.operands if kernel.multiplies else tuple(t.type for t in (*largest, *kernel.writes))
    for kind in QUANTIZED:
        if kernel.multiplies_in(kind) or (types and set(types) == {kind}):
            return kind
    floats = [name for name in types if name not in QUANTIZED]
    return floats[0] if floats else ""


def kernel_types(kernel: Kernel) -> str:
    """Return the types that a kernel reads and writes, of the largest tensors."""
    read, written = (sorted(tensors, key=lambda tensor: -tensor.bytes) for tensors in (kernel.reads, kernel.writes))
    return f"{read[0].type} → {written[0].type}" if read and written else ""


PROFILE = DocumentType[Sequence[Mapping[str, Any]]](
    Sequence[Mapping[str, Any]],
    "a profile of trtexec",
    BackendError,
    "write one: trtexec --loadEngine=x.engine --exportProfile=profile.json --dumpProfile",
)


def read_profile(path: str) -> dict[str, float]:
    """Read the milliseconds of each layer from the file of `trtexec --exportProfile`. BackendError.

    The file is a list: the number of runs, then name and times of each layer.
    """
    times: dict[str, float] = {}
    for entry in PROFILE.read(path):
        name, time = entry.get("name"), entry.get("medianMs", entry.get("averageMs"))
        if isinstance(name, str) and isinstance(time, (int, float)) and time >= 0.0:
            times[name] = times.get(name, 0.0) + float(time)
    if not times:
        raise BackendError(f"{path} is not {PROFILE.name}: it has no times of layers", remedy=PROFILE.remedy)
    return times
