"""Kernels as rows: the nodes that each computes, and where values leave INT8."""

from __future__ import annotations

from quantkit.compiling.kernel_rows import count_kinds, float_detours, kernel_rows, nodes_text, own_nodes
from tests.compiling.networks import convolution, generated, network_of, quantized_chain, tensor


def test_a_row_names_nodes_types_bytes_and_product() -> None:
    network = quantized_chain(1)
    moved = (32 * 64 + 32 * 32 * 9 + 4 * 32 * 64) / 1024
    assert kernel_rows(network, frozenset()) == [
        ("conv0", "convolution", "INT8", "FP32", f"{moved:,.1f}", "INT8"),
        ("relu0", "generated", "FP32", "INT8", f"{5 * 32 * 64 / 1024:,.1f}", ""),
    ]
    assert count_kinds(network) == "1 convolution, 1 generated"


def test_a_node_belongs_to_the_kernel_that_multiplies_it() -> None:
    """The compiler names a convolution in the kernel behind it too, and Q/DQ nodes everywhere."""
    f = tensor("f", "FP32")
    conv = convolution("conv", tensor("x"), f).model_copy(update={"nodes": ("conv", "x_Dequantize")})
    behind = generated("k", (f,), tensor("q")).model_copy(update={"nodes": ("conv", "add", "relu", "q_Quantize", "e")})
    network, pairs = network_of(conv, behind), frozenset({"x_Dequantize", "q_Quantize"})
    assert own_nodes(network, conv, pairs) == ("conv",)
    assert own_nodes(network, behind, pairs) == ("add", "relu", "e")
    assert nodes_text(network, behind, pairs) == "add + relu + 1 more"
    alone = generated("quantize", (f,), tensor("q")).model_copy(update={"nodes": ("q_Quantize",)})
    assert own_nodes(network_of(alone), alone, pairs) == ("q_Quantize",)
    nameless = generated("k9", (f,), tensor("q")).model_copy(update={"nodes": ()})
    assert nodes_text(network_of(nameless), nameless, pairs) == "(k9)"


def test_detours_are_float_values_between_int8() -> None:
    detours = float_detours(quantized_chain(3), frozenset())
    assert [(d.writer, d.type, d.reader) for d in detours] == [(f"conv{k}", "FP32", f"relu{k}") for k in range(3)]
    assert all(detour.bytes == 2 * 4 * 32 * 64 for detour in detours)
