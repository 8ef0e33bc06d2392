"""A compiled network: the kernels that TensorRT-RTX makes of an ONNX network for one GPU architecture.

The compiler fixes the kernels' borders, data types and formats; how each kernel is implemented is decided on the GPU
itself when the engine is loaded (TensorRT-RTX: ahead-of-time and just-in-time compilation). So the tensors that are
read and written, and their types, are known here; times are not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property
from math import ceil, prod
from typing import Literal

from pydantic import Field

from quantkit.frozen_record import FrozenRecord

BITS: Mapping[str, int] = {
    "FP64": 64, "INT64": 64, "FP32": 32, "TF32": 32, "INT32": 32, "FP16": 16, "BF16": 16,
    "INT8": 8, "UINT8": 8, "FP8": 8, "BOOL": 8, "INT4": 4, "FP4": 4,
}  # fmt: skip
FLOATS = frozenset({"FP64", "FP32", "TF32", "FP16", "BF16"})
QUANTIZED = frozenset({"INT8", "FP8"})
CONVOLUTION_KERNELS = frozenset({"correlation", "deconv"})
LIBRARY_KERNELS = CONVOLUTION_KERNELS | {"gemm"}
"""Kinds of kernels that multiply: convolutions and matrix products from NVIDIA's libraries."""
GENERATED = "__myl_"
"""Prefix of the names of kernels that the compiler generates; the operations in them follow."""
PRODUCTS = ("Fc", "Gemm", "MatMul", "Conv", "Corr", "Mha", "Bmm", "FMHA")
"""Parts of the names of generated and fused kernels that multiply."""
QUANTIZED_PRODUCT = re.compile(rf"RounCast(?:Conc|Move|Resh|Slic|Tran)*(?:{'|'.join(PRODUCTS)})")
"""The name of a generated kernel that rounds to INT8, moves what it has rounded, and multiplies it."""
WAITING = frozenset({"signal", "wait", "shape_call", "ShapeHostToDevice", "ShapeDeviceToHost"})
"""Kinds that synchronize streams, or compute and copy shapes: no kernels on the GPU."""


class KernelTensor(FrozenRecord):
    """A tensor that a kernel reads or writes. type: FP32, FP16, INT8 …; format: its layout in memory."""

    name: str
    shape: tuple[int, ...]
    type: str
    format: str = ""

    @property
    def bytes(self) -> int:
        """Its size in memory; 0 for a type that is not known."""
        return ceil(prod(self.shape) * BITS.get(self.type, 0) / 8)


class Kernel(FrozenRecord):
    """A kernel. nodes: the ONNX nodes in it, the first one named first; `constants`: weights and scales it reads."""

    name: str
    kind: str
    nodes: tuple[str, ...] = ()
    reads: tuple[KernelTensor, ...] = ()
    constants: tuple[KernelTensor, ...] = ()
    writes: tuple[KernelTensor, ...] = ()
    tactic: str = ""

    @property
    def runs(self) -> bool:
        """True if it is a kernel on the GPU, and no synchronization."""
        return self.kind not in WAITING

    @property
    def multiplies(self) -> bool:
        """True if it computes a convolution or a matrix product."""
        generated = self.name.startswith(GENERATED) and any(part in self.name for part in PRODUCTS)
        return self.kind in LIBRARY_KERNELS or generated

    @property
    def weights(self) -> KernelTensor | None:
        """The constant that it multiplies: a convolution's first one, else the largest one that is no vector."""
        if not self.multiplies or not self.constants:
            return None
        if self.kind in CONVOLUTION_KERNELS:
            return self.constants[0]
        matrices = [tensor for tensor in self.constants if prod(tensor.shape) > max(tensor.shape, default=1)]
        return max(matrices, key=lambda tensor: prod(tensor.shape), default=None)

    @property
    def operands(self) -> tuple[str, ...]:
        """The types of what a multiplying kernel multiplies: of its first input, and of its weights or second input."""
        weights = self.weights
        factors = self.reads[:2] if weights is None else (*self.reads[:1], weights)
        types = tuple(tensor.type for tensor in factors)
        return ("INT8", *types[1:]) if self.quantizes_inside else types

    @property
    def quantizes_inside(self) -> bool:
        """True for a generated kernel that quantizes what it multiplies next: its input is float, its product INT8."""
        return self.name.startswith(GENERATED) and QUANTIZED_PRODUCT.search(self.name) is not None

    @property
    def int8(self) -> bool:
        """True if it multiplies in INT8: both factors are."""
        return self.multiplies_in("INT8")

    @property
    def fp8(self) -> bool:
        """True if it multiplies in FP8: both factors are."""
        return self.multiplies_in("FP8")

    def multiplies_in(self, kind: str) -> bool:
        """Return whether it multiplies, and both factors are of a type."""
        return self.multiplies and bool(self.operands) and set(self.operands) == {kind}

    @property
    def bytes(self) -> int:
        """Bytes that it reads and writes, each tensor once."""
        return sum(tensor.bytes for tensor in (*self.reads, *self.constants, *self.writes))


class CompiledNetwork(FrozenRecord):
    """The kernels of a network for one architecture (`sm86`).

    version: TensorRT-RTX's. seconds: that the compiler took. engine_bytes: size of the engine. activation_bytes,
    weight_bytes: memory as the compiler states it; None where it does not. shapes: of the inputs, as compiled.
    """

    format: Literal[1] = 1
    architecture: str
    version: str
    kernels: tuple[Kernel, ...]
    shapes: Mapping[str, tuple[int, ...]] = Field(default_factory=dict)
    seconds: float
    engine_bytes: int
    activation_bytes: int | None = None
    weight_bytes: int | None = None

    @property
    def running(self) -> tuple[Kernel, ...]:
        """The kernels that run on the GPU."""
        return tuple(kernel for kernel in self.kernels if kernel.runs)

    @property
    def products(self) -> tuple[Kernel, ...]:
        """The kernels that compute convolutions and matrix products."""
        return tuple(kernel for kernel in self.running if kernel.multiplies)

    @property
    def int8_share(self) -> float:
        """The share of the convolutions and matrix products that multiply in INT8; NaN without any."""
        return sum(k.int8 for k in self.products) / len(self.products) if self.products else float("nan")

    @property
    def bytes(self) -> int:
        """Bytes that all kernels read and write."""
        return sum(kernel.bytes for kernel in self.running)

    @property
    def kinds(self) -> dict[str, int]:
        """The number of kernels of each kind, the most frequent first."""
        return dict(Counter(kernel.kind for kernel in self.running).most_common())

    @cached_property
    def by_node(self) -> Mapping[str, Kernel]:
        """ONNX node → the kernel that computes it: the one that multiplies, else the first that holds it."""
        found: dict[str, Kernel] = {}
        for kernel in sorted(self.running, key=lambda kernel: not kernel.multiplies):
            for node in kernel.nodes:
                found.setdefault(node, kernel)
        return found

    def round_trips(self) -> Iterator[tuple[Kernel, KernelTensor, Kernel]]:
        """Yield where a value goes from INT8 or FP8 through float memory to such: writer, float tensor, and reader."""
        writers = {tensor.name: kernel for kernel in self.running for tensor in kernel.writes}
        for reader in self.running:
            if not any(tensor.type in QUANTIZED for tensor in reader.writes):
                continue
            for tensor in reader.reads:
                writer = writers.get(tensor.name)
                if writer and tensor.type in FLOATS and any(read.type in QUANTIZED for read in writer.reads):
                    yield writer, tensor, reader
