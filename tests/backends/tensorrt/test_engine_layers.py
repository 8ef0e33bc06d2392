"""What an engine's layers hold, in which precision they compute, and why not in INT8.

`data/engine.json` holds layers of ResNet-20, MobileNetV2 and a vision transformer as TensorRT 8.6.1 described them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantkit.backends.engine_record import EngineLayer, precision_counts
from quantkit.backends.tensorrt.engine_layers import LayerContext, engine_layers, nodes_in
from quantkit.backends.tensorrt.kernel_times import KernelTimes
from quantkit.graph.node_selection import match_nodes

ENGINE: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "engine.json").read_text())
ENTRIES = {entry["Name"]: entry for entry in ENGINE["Layers"]}
FIRST = "/0/0.0/Conv + /0/0.2/Relu"
SHORTCUT = "/4/sc/sc.0/Conv + /4/Add + /4/Relu"
POOL = "/10/GlobalAveragePool"
MYELIN = next(name for name in ENTRIES if name.startswith("{ForeignNode"))
INT8 = LayerContext({}, int8=True, table=True)


def layers(context: LayerContext = INT8) -> dict[str, EngineLayer]:
    return {layer.name: layer for layer in engine_layers(ENGINE, context)}


def entry(
    kind: str = "CaskConvolution", name: str = "/a/Conv", formats: tuple[str, str] = ("", ""), **more: Any
) -> Any:
    inputs, outputs = ([{"Name": side, "Format/Datatype": f}] for side, f in zip("xy", formats, strict=True))
    return {"Name": name, "LayerType": kind, "Inputs": inputs, "Outputs": outputs, **more}


def only(described: Any, context: LayerContext = INT8) -> EngineLayer:
    (layer,) = engine_layers({"Layers": [described]}, context)
    return layer


def tuned(**milliseconds: float) -> KernelTimes:
    tuning = KernelTimes()
    tuning.fastest["/a/Conv"] = milliseconds
    return tuning


def test_layers_of_an_engine() -> None:
    found = layers()
    assert list(found) == [e["Name"] for e in ENGINE["Layers"]]
    assert found[FIRST].nodes == ("/0/0.0/Conv", "/0/0.2/Relu")
    assert found[SHORTCUT].nodes == ("/4/sc/sc.0/Conv", "/4/Add", "/4/Relu")
    assert found["/0/0.0/Conv + PWN(/0/0.2/Clip)"].nodes == ("/0/0.0/Conv", "/0/0.2/Clip")
    assert found["reshape_after_/10/fc/Gemm"].nodes == ("/10/fc/Gemm",)
    assert {name: layer.precision for name, layer in found.items() if layer.kind == "CaskConvolution"} == {
        FIRST: "FP16",
        "/1/b/b.0/Conv + /1/Add + /1/Relu": "FP16",
        SHORTCUT: "INT8",
        "/0/0.0/Conv + PWN(/0/0.2/Clip)": "INT8",
    }
    assert (found[POOL].precision, found[MYELIN].precision) == ("INT8", "mixed")
    assert found[FIRST].tactic.startswith("sm80_xmma_fprop_implicit_gemm_indexed_wo_smem_f16f16")
    assert [layer.kind for layer in found.values() if not layer.computes] == ["Reformat", "NoOp"]
    assert precision_counts(tuple(found.values())) == {"INT8": 3, "FP16": 2, "mixed": 1}


def test_only_layers_that_compute_something_else_have_a_reason() -> None:
    reasons = {name for name, layer in layers().items() if layer.reason}
    assert reasons == {FIRST, "/1/b/b.0/Conv + /1/Add + /1/Relu", MYELIN}
    assert not any(layer.reason for layer in layers(LayerContext({})).values())


@pytest.mark.parametrize(
    ("name", "nodes"),
    [
        ("a + b", ("a", "b")),
        ("b + a", ("a", "b")),
        ("PWN(PWN(a), b)", ("a", "b")),
        ("a || b", ()),
        ("a||b", ("a", "b")),
        ("/a/Conv + a", ("a", "/a/Conv")),
        ("ab", ()),
    ],
)
def test_without_metadata_the_name_tells(name: str, nodes: tuple[str, ...]) -> None:
    operators = dict.fromkeys(["a", "b", "/a/Conv"], "Conv")
    assert nodes_in(name, None, operators) == nodes
    assert nodes_in(name, "", operators) == (), "TensorRT told that there is none"
    assert nodes_in(f"Reformatting CopyNode for Input Tensor 0 to {name}", None, operators) == ()
    assert only({"Name": name, "LayerType": "x"}, LayerContext(operators)).nodes == nodes
    assert only({"Name": name, "LayerType": "x", "Metadata": ""}, LayerContext(operators)).nodes == ()


def test_a_layer_that_tells_its_name_only() -> None:
    layer = only(FIRST, LayerContext({"/0/0.2/Relu": "Relu"}, int8=True, table=True))
    assert (layer.nodes, layer.precision, layer.reason) == (("/0/0.2/Relu",), "unknown", None)


def test_a_reformat_holds_no_node() -> None:
    operators = dict.fromkeys(["/0/0.0/Conv", "/0/0.2/Relu"], "Conv")
    assert layers(LayerContext(operators))["Reformatting CopyNode for Input Tensor 0 to " + FIRST].nodes == ()


node_names = st.text("abc/._-[] ", min_size=1, max_size=9).filter(lambda n: "]" not in n)


@given(nodes=st.lists(node_names, max_size=5, unique=True), separator=st.sampled_from(["\x1e", "\x1f"]))
def test_metadata_is_taken_at_its_word(nodes: list[str], separator: str) -> None:
    metadata = separator.join(f"[ONNX Layer: {node}]" for node in nodes)
    assert nodes_in("x", metadata, {}) == tuple(nodes)


@pytest.mark.parametrize("node", ["a[0]", "x]y", "a [b] c"])
def test_names_with_brackets_stay_whole(node: str) -> None:
    assert nodes_in("x", f"[ONNX Layer: {node}]\x1e[ONNX Layer: b]", {}) == (node, "b")
    assert nodes_in("x", f"[ONNX Layer: {node}][ONNX Layer: b]", {}) == (node, "b")


@pytest.mark.parametrize(
    ("described", "precision"),
    [
        (entry(Weights={"Type": "Int8", "Count": 1}, formats=("Row major linear FP32", "")), "INT8"),
        (entry(Weights={"Type": "Half", "Count": 1}), "FP16"),
        (entry(Weights={"Type": "Float", "Count": 1}), "FP32"),
        (entry(Weights={"Type": "BFloat16", "Count": 1}), "BF16"),
        (entry(Weights={"Type": "Float", "Count": 1}, TacticName="sm80_xmma_gemm_tf32f32_tf32f32_f32_tn_n"), "TF32"),
        (entry(Weights={"Type": "Half", "Count": 1}, TacticName="sm80_xmma_gemm_tf32f32"), "FP16"),
        (entry(formats=("Thirty-two wide channel vectorized row major Int8 format", "Row major linear FP32")), "INT8"),
        (entry(formats=("Channel major FP16 format where channel % 8 == 0", "Row major Int8 format")), "FP16"),
        (entry(formats=("Row major linear FP32", "Row major linear FP16 format")), "FP32"),
        (entry(formats=("N/A due to dynamic shapes", "Row major linear FP16 format")), "FP16"),
        (entry(formats=("N/A due to dynamic shapes", "N/A due to dynamic shapes")), "unknown"),
        (entry("Myelin", formats=("Row major linear FP32", "Row major linear FP32")), "FP32"),
        (entry("Myelin", formats=("Row major linear FP32", "Row major linear FP16 format")), "mixed"),
        (entry("kgen", formats=("Row major linear Int32 format", "Row major linear FP16 format")), "FP16"),
        (entry(TacticName="sm72_xmma_pooling_IMMA_NCxHW32_gap"), "INT8"),
        (entry(TacticName="sm80_xmma_fprop_implicit_gemm_f16f16_f16f16_f16_nhwckrsc_nhwc"), "FP16"),
        (entry(TacticName="sm80_xmma_gemm_tf32f32_tf32f32_f32_tn_n"), "TF32"),
        (entry(TacticName="generatedNativePointwise"), "unknown"),
        (
            entry(formats=("Row major linear FP32", ""), TacticName="sm80_xmma_fprop_i8i8_i8i32_f32"),
            "FP32",
        ),
        ({"Name": "bare"}, "unknown"),
        ({"Name": "x", "LayerType": "conv", "Inputs": [{"Name": "x", "Datatype": "Half"}]}, "FP16"),
        ({"Name": "x", "LayerType": "conv", "Inputs": [{"Name": "x", "DataType": "Int8"}]}, "INT8"),
        ({"Name": "x", "LayerType": "conv", "Inputs": ["x"], "Outputs": [{"Name": "y", "Datatype": "Float"}]}, "FP32"),
    ],
)
def test_precision_is_that_of_the_weights_or_of_the_formats(described: Any, precision: str) -> None:
    assert only(described).precision == precision


@pytest.mark.parametrize(
    ("kernel", "precision"),
    [
        ("sm72_xmma_convolution_depthwiseSdcrr_INT8NCxHW32_R3_S3_U1_V1_InnerLoop4_CtaSize128", "INT8"),
        ("sm50_xmma_pooling_fw_4d_FP16FP32NHWC_Average_FastDiv_CAlign4", "FP16"),
        ("sm50_xmma_pooling_fw_4d_FP32FP32NCHW_Average_FastDiv", "FP32"),
        ("sm50_xmma_pooling_nd_NCDHW_kAVERAGE_kGENERIC_3D_POOLING_MODE_kHALF_0", "FP16"),
    ],
)
def test_precision_is_told_by_the_name_of_the_kernel(kernel: str, precision: str) -> None:
    """Kernels that TensorRT 8.6.1 timed for inputs of that precision."""
    assert only(entry(TacticName=kernel)).precision == precision


def test_reasons_from_the_surest_to_the_vaguest() -> None:
    half = entry(Weights={"Type": "Half", "Count": 1}, Metadata="[ONNX Layer: /a/Conv]\x1e[ONNX Layer: /a/Soft]")
    context: dict[str, Any] = {
        "operators": {"/a/Conv": "Conv", "/a/Soft": "Softmax"},
        "excluded": frozenset({"/a/Soft"}),
        "unscaled": frozenset({"y"}),
        "tuning": tuned(FP16=0.004, INT8=0.005),
        "table": True,
    }

    def why(**changed: Any) -> str | None:
        context.update(changed)
        return only(half, LayerContext(int8=True, **context)).reason

    assert why() == "excluded: /a/Soft"
    assert why(excluded=frozenset()) == "no scale: y"
    assert only({**half, "LayerType": "Myelin"}, LayerContext(int8=True, **context)).reason == "no scale: y"
    assert why(unscaled=frozenset()) == ("another path through the network was faster (FP16 0.0040 ms, INT8 0.0050 ms)")
    region = only({**half, "LayerType": "Myelin"}, LayerContext(int8=True, **context)).reason
    assert region is not None
    assert region.startswith("a region")
    assert why(tuning=tuned(FP32=0.02, FP16=0.004)) == "no INT8 kernel fits (FP16 0.0040 ms, FP32 0.0200 ms)"
    assert why(tuning=None) == "no INT8 kernel for Softmax"
    assert why(operators={}, table=False) == "no Q/DQ around it"
    assert why(table=True) == "TensorRT found another precision faster, or has no INT8 kernel for it"
    assert only(half, LayerContext(**context)).reason is None


def test_with_times_of_an_earlier_build_no_kernel_is_said_to_be_missing() -> None:
    """What a kept timing cache holds is not timed again, and not in the log."""
    half = entry(Weights={"Type": "Half", "Count": 1})
    context: dict[str, Any] = {"int8": True, "table": True, "tuning": tuned(FP16=0.004)}
    assert only(half, LayerContext({}, **context)).reason == "no INT8 kernel fits (FP16 0.0040 ms)"
    kept = only(half, LayerContext({}, **context, measured_anew=False)).reason
    assert kept == "TensorRT chose so by times in its timing cache (--no-timing-cache measures and shows them)"
    assert (
        only(half, LayerContext({}, **{**context, "table": False}, measured_anew=False)).reason == "no Q/DQ around it"
    )
    context["tuning"] = tuned(FP16=0.004, INT8=0.005)
    assert only(half, LayerContext({}, **context, measured_anew=False)).reason == (
        "another path through the network was faster (FP16 0.0040 ms, INT8 0.0050 ms)"
    )


def test_a_layer_that_was_not_timed_has_the_times_of_its_twin() -> None:
    """TensorRT times one layer of a kind and size."""
    half = {"Weights": {"Type": "Half", "Count": 1}, "OutMaps": 8}
    document = {
        "Layers": [
            entry(**half),
            entry(name="/twin", **half, Metadata="[ONNX Layer: /twin]", TacticName="other"),
            entry(name="/wider", **{**half, "OutMaps": 16}),
            {**entry(name="/longer", **half), "Outputs": []},
            entry("Pooling", name="/pool", **half),
        ]
    }
    context = LayerContext({}, int8=True, table=True, tuning=tuned(FP16=0.004, INT8=0.005))
    first, twin, *others = engine_layers(document, context)
    assert first.reason == twin.reason == "another path through the network was faster (FP16 0.0040 ms, INT8 0.0050 ms)"
    assert {layer.reason for layer in others} == {
        "TensorRT found another precision faster, or has no INT8 kernel for it"
    }


@pytest.mark.parametrize("kind", ["Reformat", "NoOp", "Shuffle", "Constant"])
def test_moving_data_needs_no_reason(kind: str) -> None:
    assert only(entry(kind, formats=("Row major linear FP32", "Row major linear FP32"))).reason is None


OPERATORS = {"/head/fc/Gemm": "Gemm", "/head/Softmax": "Softmax", "/body/Softmax": "Softmax", "odd[1]": "Relu"}


@pytest.mark.parametrize(
    ("patterns", "chosen", "idle"),
    [
        ((), set(), ()),
        (("/head/*",), {"/head/fc/Gemm", "/head/Softmax"}, ()),
        (("Softmax",), {"/head/Softmax", "/body/Softmax"}, ()),
        (("/body/Softmax",), {"/body/Softmax"}, ()),
        (("odd[1]",), {"odd[1]"}, ()),
        (("odd?1?",), {"odd[1]"}, ()),
        (("Soft", "softmax", "Gemm", "/HEAD/*"), {"/head/fc/Gemm"}, ("Soft", "softmax", "/HEAD/*")),
        (("*",), set(OPERATORS), ()),
        (("/head/fc/Gemm_part_2",), {"/head/fc/Gemm"}, ()),
        (("/head/fc/Gemm_part_x", "Gemm_part_1"), set(), ("/head/fc/Gemm_part_x", "Gemm_part_1")),
    ],
)
def test_nodes_are_chosen_by_name_pattern_or_operator(
    patterns: tuple[str, ...], chosen: set[str], idle: tuple[str, ...]
) -> None:
    assert match_nodes(patterns, OPERATORS) == (frozenset(chosen), idle)
