"""A compiled network as rows: the ONNX nodes of each kernel, what it reads and writes, and what it multiplies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from quantkit.backends.tensorrt_rtx.compiled import CompiledNetwork, Kernel, KernelTensor

KINDS: Mapping[str, str] = {
    "correlation": "convolution", "deconv": "convolution", "gemm": "matrix product", "kgen": "generated",
    "maxpool": "pooling", "runtime_fusion": "fused",
}  # fmt: skip
"""TensorRT-RTX's word for a kind of kernel → a plain one."""
HEAD = ("ONNX nodes", "kernel", "reads", "writes", "KiB", "multiplies")


@dataclass(frozen=True, slots=True)
class FloatDetour:
    """A value that goes from INT8 through float memory to INT8. writer, reader: ONNX nodes. bytes: written and read."""

    writer: str
    reader: str
    type: str
    bytes: int


def kernel_kind(kernel: Kernel) -> str:
    """Return the kind of a kernel in a plain word."""
    return KINDS.get(kernel.kind, kernel.kind)


def count_kinds(network: CompiledNetwork) -> str:
    """Return the number of kernels of each kind: `21 convolution, 21 generated`."""
    counts = Counter(map(kernel_kind, network.running))
    return ", ".join(f"{count} {kind}" for kind, count in counts.most_common())


def own_nodes(network: CompiledNetwork, kernel: Kernel, pairs: Collection[str]) -> tuple[str, ...]:
    """Return the ONNX nodes that a kernel computes, without Q/DQ and those that another kernel multiplies.

    Where nothing is left, all of its nodes.
    """
    own = tuple(
        node for node in kernel.nodes if node not in pairs and network.by_node.get(node, kernel).name == kernel.name
    )
    return own or tuple(node for node in kernel.nodes if node not in pairs) or kernel.nodes


def nodes_text(network: CompiledNetwork, kernel: Kernel, pairs: Collection[str]) -> str:
    """Return the ONNX nodes of a kernel: the first two, and the number of the others."""
    names = own_nodes(network, kernel, pairs)
    more = f" + {len(names) - 2} more" if len(names) > 2 else ""
    return " + ".join(names[:2]) + more if names else f"({kernel.name})"


def types_text(tensors: Sequence[KernelTensor]) -> str:
    """Return the types of tensors, each once: `INT8+FP32`."""
    return "+".join(dict.fromkeys(tensor.type for tensor in tensors)) or "–"


def product_text(kernel: Kernel) -> str:
    """Return what a kernel multiplies: `INT8`, `FP32`, `INT8×FP32`; empty for one that does not."""
    return "×".join(dict.fromkeys(kernel.operands)) if kernel.multiplies else ""


def kernel_rows(network: CompiledNetwork, pairs: Collection[str]) -> list[tuple[str, ...]]:
    """Return a row for each kernel that runs, in the compiler's order; the columns are those of `HEAD`."""
    return [
        (
            nodes_text(network, kernel, pairs),
            kernel_kind(kernel),
            types_text(kernel.reads or kernel.constants),
            types_text(kernel.writes),
            f"{kernel.bytes / 1024:,.1f}",
            product_text(kernel),
        )
        for kernel in network.running
    ]


def float_detours(network: CompiledNetwork, pairs: Collection[str]) -> list[FloatDetour]:
    """Return where values go from INT8 through float memory to INT8, those with the most bytes first."""
    found = [
        FloatDetour(
            nodes_text(network, writer, pairs), nodes_text(network, reader, pairs), tensor.type, 2 * tensor.bytes
        )
        for writer, tensor, reader in network.round_trips()
    ]
    return sorted(found, key=lambda detour: -detour.bytes)
