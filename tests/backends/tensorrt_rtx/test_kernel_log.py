"""The log of the compiler, read line by line."""

from __future__ import annotations

import pytest

from quantkit.backends.tensorrt_rtx.compiled import CompiledNetwork
from quantkit.backends.tensorrt_rtx.kernel_log import kernel_in, kernels_in, memory_in
from quantkit.errors import BackendError


def tensor(name: str, shape: str, kind: str, layout: str = "(NHWC) Channel major format") -> str:
    return (
        f"{{ Name: {name}, Dimensions: [{shape}], Strides: [1], StrideOrder: [0], Datatype: {kind}, Format: {layout} }}"
    )


def line(name: str, kind: str, reads: list[str], constants: list[str], writes: list[str], nodes: list[str]) -> str:
    metadata = "\x1f".join(f"[ONNX Layer: {node}]" for node in nodes)
    return (
        f"Name: {name}, LayerType: {kind}, Inputs: [ {', '.join(reads)}], Constants: [ {', '.join(constants)}], "
        f"Outputs: [ {', '.join(writes)}], TacticName: t, StreamId: 0, Metadata: {metadata}"
    )


CONV = line(
    "conv", "correlation",
    [tensor("x", "1,4,8,8", "Int8")],
    [tensor("w", "16,4,3,3", "Int8"), tensor("b", "16", "Float")],
    [tensor("y", "1,16,8,8", "Float")],
    ["a, odd [name]", "node_of_out"],
)  # fmt: skip
QUANTIZED = line("kgen", "kgen", [tensor("y", "1,16,8,8", "Float")], [], [tensor("z", "1,16,8,8", "Int8")], ["q"])


def test_a_line_becomes_a_kernel_with_tensors_types_bytes_and_nodes() -> None:
    kernel = kernel_in(CONV, {"out": "mine"})
    assert (kernel.kind, kernel.nodes, kernel.tactic) == ("correlation", ("a, odd [name]", "mine"), "t")
    assert [t.shape for t in (*kernel.reads, *kernel.constants, *kernel.writes)] == [
        (1, 4, 8, 8), (16, 4, 3, 3), (16,), (1, 16, 8, 8),
    ]  # fmt: skip
    assert kernel.int8
    assert kernel.bytes == 256 + 576 + 64 + 4096


def test_copies_of_shapes_are_no_kernels() -> None:
    """As the compiler writes them for a network whose output is a shape."""
    copy = (
        "Name: [ShapeHostToDeviceCopy 0], LayerType: ShapeHostToDevice, Inputs: [], Outputs: [ { Name: y, Location: "
        "Device, Dimensions: [4], Datatype: Int64, Format: Format not available due to dynamic shapes }], "
        "ParameterType: ShapeH2D, shapeValues0: [1, 3, 8, 8], TacticValue: 0x0, StreamId: 0, Metadata: "
    )
    kernel = kernel_in(copy, {})
    assert (kernel.runs, kernel.nodes, [t.type for t in kernel.writes]) == (False, (), ["INT64"])


def test_a_line_of_another_form_is_refused_rather_than_left_out() -> None:
    with pytest.raises(BackendError, match="form that quantkit does not know"):
        kernel_in(CONV.replace("Outputs", "Results"), {})
    with pytest.raises(BackendError, match="form that quantkit does not know"):
        kernel_in(CONV.replace("Datatype: Int8", "Kind: Int8"), {})


def test_a_float_tensor_between_int8_kernels_is_a_round_trip() -> None:
    kernels = kernels_in(iter([CONV, "something else", QUANTIZED]))
    made = CompiledNetwork(architecture="sm86", version="1", kernels=kernels, seconds=1.0, engine_bytes=1)
    assert [(a.name, t.name, b.name) for a, t, b in made.round_trips()] == [("conv", "y", "kgen")]
    assert made.int8_share == 1.0
    assert made.by_node["node_of_out"].name == "conv"


def test_memory_is_read_as_stated() -> None:
    assert memory_in(iter(["Total Activation Memory: 12 bytes", "Total Weights Memory: 3 bytes"])) == {
        "Activation": 12,
        "Weights": 3,
    }


def test_a_generated_kernel_that_quantizes_before_it_multiplies_is_int8() -> None:
    weights, read, write = (
        tensor("w", "5,4,1,1", "Int8"),
        tensor("x", "1,4,1,1", "Float"),
        tensor("y", "1,5,1,1", "Float"),
    )
    for name, int8 in (("__myl_MulMinMaxRounCastCorr_myl0_3", True), ("__myl_RounCastConcCorrMul_myl0_3", True),
                       ("__myl_CastMulFc_myl0_2", False), ("__myl_RounCastCastMulFc_myl0_2", False)):  # fmt: skip
        assert kernel_in(line(name, "kgen", [read], [weights], [write], ["n"]), {}).int8 is int8
