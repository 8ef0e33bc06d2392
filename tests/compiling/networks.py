"""Compiled networks made by hand: kernels that read and write what a test says."""

from __future__ import annotations

from quantkit.backends.tensorrt_rtx.compiled import CompiledNetwork, Kernel, KernelTensor

SHAPE = (1, 32, 8, 8)


def tensor(name: str, kind: str = "INT8", shape: tuple[int, ...] = SHAPE) -> KernelTensor:
    return KernelTensor(name=name, shape=shape, type=kind)


def convolution(name: str, reads: KernelTensor, writes: KernelTensor, *, kind: str = "INT8") -> Kernel:
    weights = tensor(f"{name}.w", kind, (writes.shape[1], reads.shape[1], 3, 3))
    return Kernel(name=name, kind="correlation", nodes=(name,), reads=(reads,), constants=(weights,), writes=(writes,))


def generated(name: str, reads: tuple[KernelTensor, ...], writes: KernelTensor) -> Kernel:
    return Kernel(name=name, kind="kgen", nodes=(name,), reads=reads, writes=(writes,))


def network_of(*kernels: Kernel) -> CompiledNetwork:
    return CompiledNetwork(architecture="sm86", version="1.7", kernels=kernels, seconds=0.1, engine_bytes=1)


def quantized_chain(length: int) -> CompiledNetwork:
    """INT8 convolutions whose results a generated kernel each quantizes, as TensorRT-RTX lists them."""
    kernels = []
    for k in range(length):
        made = tensor(f"f{k}", "FP32")
        kernels += [convolution(f"conv{k}", tensor(f"q{k}"), made), generated(f"relu{k}", (made,), tensor(f"q{k + 1}"))]
    return network_of(*kernels)
